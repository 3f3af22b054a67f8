-- What sysbench executes: each thread changes as many single rows as it is told, each in a transaction of its own, by
-- a prepared statement. The rows that `insert` adds are those that `delete` takes away, given the same number of threads.
sysbench.cmdline.options = {
  operation = {"insert, update or delete", "update"},
  each = {"changes of each thread", 1000},
  first = {"id before the first row that is added", 1000000},
}

local statements = {
  insert = "INSERT INTO item (id, email, amount, updated_at) VALUES (?, 'someone@example.com', 10, NOW(6))",
  update = "UPDATE item SET amount = amount + 1, updated_at = NOW(6) WHERE id = ?",
  delete = "DELETE FROM item WHERE id = ?",
}

function thread_init()
  connection = sysbench.sql.driver():connect()
  statement = connection:prepare(statements[sysbench.opt.operation])
  id = statement:bind_create(sysbench.sql.type.BIGINT)
  statement:bind_param(id)
end

function thread_run(thread)
  for number = 0, sysbench.opt.each - 1 do
    if sysbench.opt.operation == "update" then
      id:set(sysbench.rand.uniform(1, 100000))
    else
      id:set(sysbench.opt.first + number * sysbench.opt.threads + thread)
    end
    statement:execute()
  end
end

function event()
end
