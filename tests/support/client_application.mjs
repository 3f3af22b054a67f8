// Copyright: dbfleet.audit contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// An application around the Node example of docs/context.md: node client_application.mjs EXAMPLE MODULES PLACE USERS COUNT
// writes notes through a pool of one connection, COUNT times in turn and COUNT times side by side for each of the users;
// then it fails on behalf of the first, and writes on behalf of nobody. JSON: PLACE for the pool, USERS {name: context}.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [example, modules, place, people, count] = process.argv.slice(2);
const pg = createRequire(`${modules}/package.json`)('pg');
const { onBehalfOf, withAudit } = await import(pathToFileURL(example));

const pool = new pg.Pool({ ...JSON.parse(place), max: 1 });
const users = Object.entries(JSON.parse(people)).map(([user, context]) => ({ user, ...context }));
const insert = (client, author) => client.query('INSERT INTO notes (author) VALUES ($1)', [author]);
const write = (context) => onBehalfOf(context, () => withAudit(pool, (client) => insert(client, context.user)));

const rounds = Array.from({ length: Number(count) }, () => users).flat();
for (const context of rounds) {
  await write(context);
}
await Promise.all(rounds.map(write));
const failed = await onBehalfOf(users[0], () => withAudit(pool, async (client) => {
  await insert(client, 'never');
  throw new Error('trouble');
})).catch((error) => error.message);
await withAudit(pool, (client) => insert(client, 'nobody'));
await pool.end();
console.log(failed);
