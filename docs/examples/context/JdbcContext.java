// SPDX-License-Identifier: 0BSD
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Set;
import java.util.function.Supplier;
import javax.sql.DataSource;

/**
 * JDBC: a data source whose every transaction begins with the context of the request that it works for.
 *
 * <pre>DataSource source = JdbcContext.audited(new HikariDataSource(config), () -> CurrentRequest.contextAsJson());</pre>
 */
public final class JdbcContext {
    private static final String SET_CONTEXT = "SELECT set_config('app.audit_context', ?, true)";
    private static final Set<String> ENDS = Set.of("setAutoCommit", "commit", "rollback");

    private JdbcContext() { }

    /** Wraps a pool; {@code context} returns the JSON of the current request, or null where there is none. */
    public static DataSource audited(DataSource pool, Supplier<String> context) {
        return proxy(DataSource.class, (self, method, arguments) -> {
            Object result = call(pool, method, arguments);
            return result instanceof Connection ? audited((Connection) result, context) : result;
        });
    }

    private static Connection audited(Connection connection, Supplier<String> context) {
        boolean[] told = {false};
        return proxy(Connection.class, (self, method, arguments) -> {
            Object result = call(connection, method, arguments);
            if (ENDS.contains(method.getName())) {
                told[0] = false;
            }
            return !(result instanceof Statement) ? result : proxy(method.getReturnType(), (statement, use, values) -> {
                if (use.getName().startsWith("execute") && !told[0]) {
                    told[0] = tell(connection, context.get());
                }
                return call(result, use, values);
            });
        });
    }

    private static boolean tell(Connection connection, String context) throws SQLException {
        if (context == null || connection.getAutoCommit()) {
            return false;
        }
        try (PreparedStatement statement = connection.prepareStatement(SET_CONTEXT)) {
            statement.setString(1, context);
            return statement.execute();
        }
    }

    private static <T> T proxy(Class<T> type, InvocationHandler handler) {
        return type.cast(Proxy.newProxyInstance(type.getClassLoader(), new Class<?>[] {type}, handler));
    }

    private static Object call(Object target, Method method, Object[] arguments) throws Throwable {
        try {
            return method.invoke(target, arguments);
        } catch (InvocationTargetException failure) {
            throw failure.getCause();
        }
    }
}
