import test from 'ava';
import { parseQuery, parseUsable, QueryError, unknownParameters } from './query.js';

const nowMs = Date.UTC(2026, 10, 23, 20, 0, 30);

test('defaults to the last hour, refreshed every 5 s, without filters', (t) => {
  t.deepEqual(parseQuery({}, nowMs), {
    fromMs: nowMs - 3_600_000,
    toMs: nowMs,
    filter: {},
    limit: undefined,
    refreshSeconds: 5,
    compare: true,
    errorsFirst: false,
    editing: false,
    given: {},
  });
});

test('reads every parameter', (t) => {
  const given = {
    from: 'now-2d',
    to: 'now-1d',
    source: 'caddy',
    host: 'a.example',
    method: 'GET',
    status: '5xx',
    path: '/a b',
    client: '192.0.2.0',
    user_agent: 'curl/8',
    referrer: 'https://r.example/',
    request_id: '7f-1',
    limit: '7',
    errors: 'first',
    refresh: '15',
    compare: 'off',
    edit: 'off',
  };
  t.deepEqual(parseQuery(given, nowMs), {
    fromMs: nowMs - 2 * 86_400_000,
    toMs: nowMs - 86_400_000,
    filter: {
      source: 'caddy',
      host: 'a.example',
      method: 'GET',
      status: { min: 500, max: 599 },
      path: '/a b',
      client: '192.0.2.0',
      userAgent: 'curl/8',
      referrer: 'https://r.example/',
      requestId: '7f-1',
    },
    limit: 7,
    refreshSeconds: 15,
    compare: false,
    errorsFirst: true,
    editing: false,
    given,
  });
});

test('reads a status as a range of one, and 0 as no response', (t) => {
  t.deepEqual(parseQuery({ status: '404' }, nowMs).filter, { status: { min: 404, max: 404 } });
  t.deepEqual(parseQuery({ status: '0' }, nowMs).filter, { status: { min: 0, max: 0 } });
});

test('does not refresh a range with a fixed end, or with refresh=off', (t) => {
  t.is(parseQuery({ from: '2026-11-23T19:00:00Z', to: '2026-11-23T20:00:00Z' }, nowMs).refreshSeconds, undefined);
  t.is(parseQuery({ refresh: 'off' }, nowMs).refreshSeconds, undefined);
});

test('does not refresh an open form', (t) => {
  t.like(parseQuery({ edit: 'on', refresh: '5' }, nowMs), { editing: true, refreshSeconds: undefined });
});

test('reads times without a zone, which forms send, as UTC', (t) => {
  t.like(parseQuery({ from: '2026-11-23T19:00', to: '2026-11-23T19:30:15' }, nowMs), {
    fromMs: Date.UTC(2026, 10, 23, 19),
    toMs: Date.UTC(2026, 10, 23, 19, 30, 15),
  });
});

test('ignores empty parameters, which forms send', (t) => {
  t.deepEqual(parseQuery({ host: '', from: '', status: '' }, nowMs), parseQuery({}, nowMs));
});

const refused = test.macro({
  exec(t, raw: Record<string, string | string[]>, parameter: string, message: RegExp) {
    const error = t.throws(() => parseQuery(raw, nowMs), { instanceOf: QueryError });
    t.is(error.parameter, parameter);
    t.regex(error.message, message);
    t.true(error.message.includes(`The parameter ${parameter} is "`));
  },
  title: (_title, raw) =>
    `${JSON.stringify(raw).slice(0, 60)} throws an error with the parameter, the value and the allowed values`,
});

test(refused, { from: 'yesterday' }, 'from', /"yesterday"; allowed is now, now-15m/);
test(refused, { to: '2026-02-30' }, 'to', /RFC 3339/);
test(refused, { from: 'now', to: 'now-1h' }, 'from', /before the parameter to/);
test(refused, { from: 'now-99999d' }, 'from', /between the years 1970 and 2200/);
test(refused, { from: 'now-9000d' }, 'from', /at most 3660 days/);
test(refused, { status: '6xx' }, 'status', /404/);
test(refused, { status: '4' }, 'status', /404/);
test(refused, { method: 'GET POST' }, 'method', /such as GET/);
test(refused, { path: '/a?b' }, 'path', /without its query/);
test(refused, { host: 'x'.repeat(8193) }, 'host', /at most 8192 characters/);
test(refused, { client: '1'.repeat(256) }, 'client', /at most 255 characters/);
test(refused, { user_agent: 'x'.repeat(8193) }, 'user_agent', /at most 8192 characters/);
test(refused, { referrer: 'https://r.example/?q=1' }, 'referrer', /without its query/);
test(refused, { request_id: ['a', 'b'] }, 'request_id', /allowed is one value/);
test(refused, { limit: '0' }, 'limit', /from 1 to 10000/);
test(refused, { limit: '1e3' }, 'limit', /from 1 to 10000/);
test(refused, { refresh: 'often' }, 'refresh', /off or a whole number from 1 to 3600/);
test(refused, { compare: 'yes' }, 'compare', /allowed is on or off/);
test(refused, { edit: '1' }, 'edit', /allowed is on or off/);
test(refused, { host: ['a', 'b'] }, 'host', /"a, b"; allowed is one value/);

test('ignores unknown parameters and returns their names', (t) => {
  const raw = { utm_source: 'mail', fbclid: ['a', 'b'], status: '404' };
  t.deepEqual(parseQuery(raw, nowMs), parseQuery({ status: '404' }, nowMs));
  t.deepEqual(unknownParameters(raw), ['utm_source', 'fbclid']);
});

test('skips invalid parameters and uses the others', (t) => {
  const { query, problems } = parseUsable(
    { from: 'now-6h', status: '6xx', host: ['a', 'b'], method: 'GET', limit: '0' },
    nowMs,
  );
  t.deepEqual(query, parseQuery({ from: 'now-6h', method: 'GET' }, nowMs));
  t.deepEqual(problems.map(({ parameter }) => parameter).sort(), ['host', 'limit', 'status']);
  for (const raw of [{ from: 'now', to: 'now-1h' }, { to: 'now-2h' }, { to: '2026-01-01T00:00:00Z' }]) {
    const usable = parseUsable({ ...raw, host: 'a' }, nowMs);
    t.like(usable.query.filter, { host: 'a' });
    t.true(usable.problems.length >= 1, JSON.stringify(raw));
  }
  t.deepEqual(parseUsable({ host: 'a' }, nowMs).problems, []);
});

test('truncates client addresses like stored ones, and accepts their prefix', (t) => {
  const clientOf = (client: string, clientIp: 'truncated' | 'full') =>
    parseQuery({ client }, nowMs, { clientIp }).filter.client;
  for (const client of ['203.0.113.9', '203.0.113.0', '203.0.113.0/24', '::ffff:203.0.113.9'])
    t.is(clientOf(client, 'truncated'), '203.0.113.0', client);
  for (const client of ['2001:db8:1:2::9', '2001:db8:1::', '2001:db8:1::/48'])
    t.is(clientOf(client, 'truncated'), '2001:db8:1::', client);
  t.is(clientOf('203.0.113.9', 'full'), '203.0.113.9');
  t.is(clientOf('no address', 'truncated'), 'no address');
});
