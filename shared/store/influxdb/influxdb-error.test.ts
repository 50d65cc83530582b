import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { HttpError } from '@influxdata/influxdb-client';
import test, { type ExecutionContext } from 'ava';
import { influxdOfThisFile, quietLog, spoolOfTest, testWithInfluxd } from '../../../test/influxd.js';
import { StoreError, UsageError, type StoreErrorAction } from '../../errors.js';
import type { RequestEvent } from '../../request-event.js';
import type { Batch, Store } from '../store.js';
import { influxdbError, parseRetryAfter } from './influxdb-error.js';
import { openInfluxdbStore } from './influxdb-store.js';
import { emptyRequest } from '../../../test/empty-request.js';

const influxd = influxdOfThisFile();
const spool = spoolOfTest();
const token = 'secret-token-of-this-test';

const event: RequestEvent = {
  ...emptyRequest,
  source: 'caddy',
  timeMs: Date.UTC(2026, 10, 23, 20),
  host: 'a.example',
  method: 'GET',
  status: 200,
  durationMs: 1,
  size: 1,
};
const batch: Batch = {
  recorder: 'r',
  writer: 'w',
  sequence: 1,
  requests: [event],
  aggregates: [],
  rollups: [],
  topLists: [],
  ledger: undefined,
};

const answers: readonly (readonly [
  status: number,
  headers: Record<string, string>,
  body: string,
  action: StoreErrorAction,
  message: RegExp,
  detail: RegExp,
  retryAfterMs?: number,
])[] = [
  [
    429,
    { 'retry-after': '7' },
    '{"code":"too many requests","message":"slow down"}',
    'retry',
    /busy or not ready since .* UTC \(status 429\)/,
    /429 \(slow down\)/,
    7000,
  ],
  [503, { 'retry-after': '120' }, '', 'retry', /busy or not ready/, /503/, 120_000],
  [500, {}, '{"code":"internal error","message":"timeout"}', 'retry', /busy or not ready/, /500 \(timeout\)/],
  [502, { 'content-type': 'text/html' }, '<html>Bad Gateway</html>', 'retry', /busy or not ready/, /502/],
  [
    401,
    {},
    `{"code":"unauthorized","message":"no access with ${token}"}`,
    'hold',
    /rejected the token\. INFLUXDB_TOKEN is missing, wrong/,
    /no access with \[token\]/,
  ],
  [403, {}, '{"code":"forbidden","message":"no"}', 'hold', /needs write on the bucket "b"/, /403 \(no\)/],
  [
    404,
    {},
    '{"code":"not found","message":"bucket \\"b\\" not found"}',
    'hold',
    /Create the bucket "b" in the organisation "o"/,
    /bucket "b" not found/,
  ],
  [301, { location: 'https://elsewhere.example/' }, '', 'hold', /INFLUXDB_URL/, /301/],
  [405, {}, 'no', 'hold', /INFLUXDB_URL/, /405/],
  [
    400,
    {},
    '{"code":"invalid","message":"unable to parse"}',
    'drop',
    /rejected the request \(status 400\)/,
    /unable to parse/,
  ],
  [
    400,
    { 'content-type': 'text/html' },
    '<html>plain HTTP request sent to HTTPS port</html>',
    'hold',
    /INFLUXDB_URL/,
    /answered 400/,
  ],
  [413, { 'content-type': 'text/html' }, '<html>too large</html>', 'drop', /status 413/, /413/],
  [422, {}, '{"code":"unprocessable entity","message":"dropped=1"}', 'drop', /status 422/, /dropped=1/],
];

for (const [status, headers, body, action, message, detail, retryAfterMs] of answers) {
  const origin = headers['content-type'] === 'text/html' ? 'of a proxy' : 'of InfluxDB';
  // A read cannot be dropped: a query that InfluxDB rejects is a bug of this program.
  const ofReads = action === 'drop' ? 'hold' : action;
  test(`converts status ${status} ${origin} to ${action} for writes and ${ofReads} for reads, with its message as detail and without the token`, async (t) => {
    await withServer(
      (request, response) => {
        request.resume();
        response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(body);
      },
      async (store) => {
        const [write, pingToWrite, ...reads] = usesOf(store);
        for (const use of action === 'drop' ? reads : [write!, pingToWrite!, ...reads]) {
          const error = await t.throwsAsync(use(), { instanceOf: StoreError, message });
          t.is(error.action, ofReads);
          t.is(error.retryAfterMs, retryAfterMs);
          t.regex(error.detail ?? '', detail);
          t.notRegex(
            error.message,
            /slow down|timeout|Bad Gateway|no access with|\(no\)|unable to parse|too large|dropped=1|<html>/,
          );
          noToken(t, error);
        }
        if (action !== 'drop') return;
        t.is(await write!(), 1, 'the request is set aside');
        await t.notThrowsAsync(pingToWrite!(), 'token and bucket are valid, although the line is refused');
      },
    );
  });
}

test('holds the data after an unknown error, such as a bug of this program', (t) => {
  for (const caught of [
    new TypeError('x is not a function'),
    new RangeError('Invalid array length'),
    new Error('?'),
    'thrown text',
    undefined,
  ]) {
    const error = influxdbError('write 5 lines', caught, { url: 'http://127.0.0.1:1', org: 'o', bucket: 'b', token });
    t.is(error.action, 'hold', String(caught));
    t.regex(error.message, /for an unexpected reason\. The log has the details/);
    t.true(error.detail?.startsWith('Cannot write 5 lines: '), error.detail);
  }
});

test("hides the token in InfluxDB's message, even if it is truncated, and nothing else", (t) => {
  const detailOf = (message: string, tokenOfPlace: string): string =>
    influxdbError(
      'write',
      new HttpError(401, 'Unauthorized', JSON.stringify({ message }), undefined, 'application/json'),
      { url: 'http://127.0.0.1:1', org: 'o', bucket: 'b', token: tokenOfPlace },
    ).detail!;
  t.regex(detailOf(`${'a'.repeat(490)}${token}`, token), /a\[token\]\)$/);
  t.is(detailOf('no x here', 'x'), 'Cannot write: InfluxDB answered 401 (no [token] here)');
});

test('retries when the server does not respond in time', async (t) => {
  await withServer(
    (request) => void request.resume(),
    async (store) => {
      for (const use of usesOf(store)) {
        const error = await t.throwsAsync(use(), { instanceOf: StoreError, message: /no complete response in time/ });
        t.is(error.action, 'retry');
      }
    },
    200,
  );
});

test('retries when the response is cut off', async (t) => {
  await withServer(
    (request, response) => {
      request.resume();
      response.writeHead(200, { 'content-length': '1000', 'content-type': 'text/csv' });
      response.write('#datatype,string\r\n', () => request.socket.destroy());
    },
    async (store) => {
      for (const use of usesOf(store)) {
        const error = await t.throwsAsync(use(), { instanceOf: StoreError });
        t.is(error.action, 'retry');
      }
    },
  );
});

test('throws when a query fails midway with status 200', async (t) => {
  await withServer(
    (request, response) => {
      request.resume();
      response
        .writeHead(200, { 'content-type': 'text/csv' })
        .end(
          '#datatype,string,string\r\n#group,true,true\r\n#default,,\r\n,error,reference\r\n,"it broke, sadly",897\r\n',
        );
    },
    async (store) => {
      const error = await t.throwsAsync(
        store.readRollups({ fromMs: 0, toMs: 10_000, level: 10, scope: 'all', filter: {} }),
        { instanceOf: StoreError, message: /did not finish its answer/ },
      );
      t.regex(error.detail ?? '', /midway \(it broke, sadly\)/);
      t.is(error.action, 'retry');
    },
  );
});

test('retries when the server is unreachable, and names its address', async (t) => {
  const store = await openInfluxdbStore(
    { url: 'http://127.0.0.1:1', org: 'o', bucket: 'b', token, ...spool },
    { log: quietLog },
  );
  for (const use of usesOf(store)) {
    const error = await t.throwsAsync(use(), {
      instanceOf: StoreError,
      message:
        /^InfluxDB at http:\/\/127\.0\.0\.1:1 cannot be reached since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC: nothing listens at that address\. /,
    });
    t.regex(error.detail ?? '', /ECONNREFUSED/);
    t.is(error.action, 'retry');
    noToken(t, error);
  }
  await store.close();
});

test('parses Retry-After as seconds or a date', (t) => {
  const nowMs = Date.UTC(2026, 10, 23, 20);
  t.is(parseRetryAfter('7', nowMs), 7000);
  t.is(parseRetryAfter('0', nowMs), 0);
  t.is(parseRetryAfter('Mon, 23 Nov 2026 20:00:30 GMT', nowMs), 30_000);
  t.is(parseRetryAfter('Mon, 23 Nov 2026 19:00:00 GMT', nowMs), 0);
  t.is(parseRetryAfter('soon', nowMs), undefined);
  t.is(parseRetryAfter(undefined, nowMs), undefined);
});

test('rejects an invalid address or token immediately', async (t) => {
  for (const url of [
    '',
    'localhost:8086',
    'ftp://127.0.0.1',
    'http://user:password@127.0.0.1:8086',
    'http://127.0.0.1:8086/?org=o',
  ]) {
    const error = await t.throwsAsync(
      openInfluxdbStore({ url, org: 'o', bucket: 'b', token, ...spool }, { log: quietLog }),
      { instanceOf: UsageError, message: /INFLUXDB_URL/ },
      url,
    );
    t.notRegex(error.message, /password@/);
  }
  const error = await t.throwsAsync(
    openInfluxdbStore(
      { url: 'http://127.0.0.1:8086', org: 'o', bucket: 'b', token: `${token}\n`, ...spool },
      { log: quietLog },
    ),
    { instanceOf: UsageError, message: /INFLUXDB_TOKEN/ },
  );
  noToken(t, error);
});

testWithInfluxd(
  'holds the data when InfluxDB rejects the token, or the bucket or organisation is missing',
  async (t) => {
    const server = await influxd();
    const right = { url: server.url, org: server.org, bucket: server.bucket, token: server.token };
    const assertHeld = async (options: typeof right, use: (store: Store) => Promise<unknown>): Promise<void> => {
      const store = await openInfluxdbStore({ ...options, ...spool }, { log: quietLog });
      const error = await t.throwsAsync(use(store), { instanceOf: StoreError });
      t.is(error.action, 'hold', error.message);
      t.false(JSON.stringify([error.message, error.stack]).includes(options.token));
      await store.close();
    };
    for (const wrong of [{ token: 'wrong-token' }, { bucket: 'no-such-bucket' }, { org: 'no-such-org' }]) {
      await assertHeld({ ...right, ...wrong }, (store) => store.write(batch));
      await assertHeld({ ...right, ...wrong }, (store) => store.ping());
      await assertHeld({ ...right, ...wrong }, (store) => store.pingToWrite());
    }
    const writeOnly = await server.createToken(server.bucket, ['write']);
    const readOnly = await server.createToken(server.bucket, ['read']);
    await assertHeld({ ...right, token: writeOnly }, (store) => store.ping());
    await assertHeld({ ...right, token: readOnly }, (store) => store.write(batch));
    await assertHeld({ ...right, token: readOnly }, (store) => store.pingToWrite());
    const writer = await openInfluxdbStore({ ...right, token: writeOnly, ...spool }, { log: quietLog });
    await writer.pingToWrite();
    await writer.write(batch);
    await writer.close();
    const reader = await openInfluxdbStore({ ...right, token: readOnly, ...spool }, { log: quietLog });
    await reader.ping();
    t.is((await reader.readRequests({ fromMs: event.timeMs, toMs: event.timeMs + 1, filter: {}, limit: 5 })).length, 1);
    await reader.close();
  },
);

if (process.env['INFLUXDB_URL'] === undefined) {
  testWithInfluxd('works again after InfluxDB is killed and restarted', async (t) => {
    const server = await influxd();
    const store = await openInfluxdbStore(
      { url: server.url, org: server.org, bucket: await server.createBucket(), token: server.token, ...spool },
      { log: quietLog },
    );
    await store.write(batch);
    await server.kill();
    for (const use of usesOf(store)) t.is((await t.throwsAsync(use(), { instanceOf: StoreError })).action, 'retry');
    await server.restart();
    await store.ping();
    await store.write(batch);
    t.is((await store.readRequests({ fromMs: event.timeMs, toMs: event.timeMs + 1, filter: {}, limit: 5 })).length, 1);
    await store.close();
  });
}

function usesOf(store: Store): (() => Promise<unknown>)[] {
  return [
    () => store.write(batch),
    () => store.pingToWrite(),
    () => store.ping(),
    () => store.readLedgers({ sinceMs: 0 }),
  ];
}

function noToken(t: ExecutionContext, error: Error): void {
  t.false(`${error.message} ${error.stack} ${JSON.stringify(error)} ${String(error.cause)}`.includes(token));
}

/** A store with a fake server, for responses that InfluxDB cannot be made to return. */
async function withServer(
  listener: RequestListener,
  use: (store: Store) => Promise<void>,
  timeoutMs = 10_000,
): Promise<void> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const store = await openInfluxdbStore(
    {
      url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      org: 'o',
      bucket: 'b',
      token,
      timeoutMs,
      ...spool,
    },
    { log: quietLog },
  );
  try {
    await use(store);
  } finally {
    await store.close();
    server.closeAllConnections();
    server.close();
  }
}
