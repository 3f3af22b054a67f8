// SPDX-License-Identifier: 0BSD
// node-postgres: a transaction on behalf of the user of the current request, on a client of a pool.
import { AsyncLocalStorage } from 'node:async_hooks';

const current = new AsyncLocalStorage();

// Runs `work`, and whatever it awaits, on behalf of `context.user`. As middleware of Express:
//   app.use((req, res, next) => onBehalfOf({ user: req.user.name, ip_address: req.ip }, next));
export const onBehalfOf = (context, work) => current.run(context, work);

// Runs `await work(client)` in a transaction that is recorded under the context of onBehalfOf():
//   await withAudit(pool, (client) => client.query('UPDATE invoices SET status = $1 WHERE id = $2', ['void', 17]));
export async function withAudit(pool, work) {
  const client = await pool.connect();
  let broken;
  try {
    await client.query('BEGIN');
    const context = current.getStore();
    if (context) {
      await client.query("SELECT set_config('app.audit_context', $1, true)", [JSON.stringify(context)]);
    }
    const result = await work(client);
    await client.query('COMMIT');
    return result;
  } catch (error) {
    await client.query('ROLLBACK').catch((failure) => { broken = failure; });
    throw error;
  } finally {
    // With an error, the pool closes the connection instead of lending it again.
    client.release(broken);
  }
}
