// SPDX-License-Identifier: 0BSD
// Prisma: a client for one request, whose every transaction, of one query or of several, begins with its context.
//   const db = onBehalfOf(prisma, { user: 'ada.lee', request_id: 'req-7731' });
//   await db.invoice.update({ ... });
//   await db.$transaction(async (tx) => { await tx.invoice.update({ ... }); await tx.payment.create({ ... }); });
export function onBehalfOf(prisma, context) {
  const json = JSON.stringify(context);
  const tell = (client) => client.$executeRaw`SELECT set_config('app.audit_context', ${json}, true)`;
  return prisma.$extends({
    query: {
      async $allOperations({ args, query }) {
        const [, result] = await prisma.$transaction([tell(prisma), query(args)]);
        return result;
      },
    },
    client: {
      // The extension above would take each query of a transaction out of it, so that one begins at the plain client.
      $transaction(work, options) {
        if (typeof work !== 'function') {
          throw new TypeError('db.$transaction() takes an async function here, not an array');
        }
        return prisma.$transaction(async (tx) => {
          await tell(tx);
          return work(tx);
        }, options);
      },
    },
  });
}
