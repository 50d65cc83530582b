import { once } from 'node:events';
import { createServer, request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import Router from '@koa/router';
import test, { type ExecutionContext } from 'ava';
import Koa from 'koa';
import type { RequestEvent } from '../../shared/request-event.js';
import { requestMetrics } from './request-metrics.js';

/** A Koa app that listens, what it recorded, and a way to wait for the next record. */
async function start(
  t: ExecutionContext,
  build: (app: Koa) => void,
  options: Partial<Parameters<typeof requestMetrics>[0]> = {},
) {
  const events: RequestEvent[] = [];
  const waiting: ((event: RequestEvent) => void)[] = [];
  const app = new Koa();
  app.silent = true;
  app.use(
    requestMetrics({
      recorder: {
        record(event) {
          const next = waiting.shift();
          if (next) next(event);
          else events.push(event);
          return true;
        },
      },
      ...options,
    }),
  );
  build(app);
  const handle = app.callback();
  const server = createServer((request, response) => void handle(request, response)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const recorded = (): Promise<RequestEvent> => {
    const event = events.shift();
    return event === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(event);
  };
  const call = async (
    path: string,
    { body, ...init }: RequestOptions & { body?: string } = {},
  ): Promise<{ status: number | undefined; text: string; event: RequestEvent }> => {
    const sent = httpRequest({ host: '127.0.0.1', port, path, ...init }).end(body);
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    const text = (await response.toArray()).join('');
    return { status: response.statusCode, text, event: await recorded() };
  };
  return { app, port, events, recorded, call };
}

function withRouter(define: (router: Router) => void): (app: Koa) => void {
  return (app) => {
    const router = new Router();
    define(router);
    app.use(router.routes()).use(router.allowedMethods());
  };
}

test('records a request once, with all fields', async (t) => {
  const { call, events } = await start(
    t,
    withRouter((router) =>
      router.get('/users/:id', (ctx) => {
        ctx.body = 'grüße';
      }),
    ),
    { source: 'shop' },
  );
  const before = Date.now();
  const { event } = await call('/users/42?q=1', {
    headers: { host: 'shop.example', 'user-agent': 'tester', referer: 'http://from.example/' },
  });
  t.like(event, {
    source: 'shop',
    host: 'shop.example',
    method: 'GET',
    status: 200,
    size: 7,
    bytesRead: 0,
    uri: '/users/42?q=1',
    endpoint: '/users/:id',
    clientIp: '127.0.0.1',
    userAgent: 'tester',
    referrer: 'http://from.example/',
    protocol: 'HTTP/1.1',
    tls: '',
    upstreamMs: null,
    error: '',
    errorId: '',
    upstream: '',
    retries: null,
    contentType: '',
    requestId: '',
  });
  t.true(event.durationMs! > 0);
  t.true(event.timeMs >= before - 10 && event.timeMs <= Date.now() + 10);
  t.true(Number.isInteger(event.timeNs) && event.timeNs >= 0 && event.timeNs < 1_000_000);
  t.deepEqual(events, []);
});

test('records the full pattern of the route that handled the request as endpoint', async (t) => {
  const { call } = await start(t, (app) => {
    const items = new Router();
    items.get('/items/:item', (ctx) => {
      ctx.body = 'item';
    });
    const outer = new Router({ prefix: '/api' });
    outer.use((ctx, next) => (ctx.get('x-refuse') === '' ? next() : ctx.throw(401)));
    outer.get('/me', (ctx) => {
      ctx.body = 'me';
    });
    outer.get('/:name', async (ctx, next) => {
      ctx.body = 'name';
      await next();
    });
    outer.get('/:last', (ctx) => {
      ctx.body = 'last';
    });
    outer.use('/shops/:shop', items.routes());
    app.use(outer.routes()).use(outer.allowedMethods());
  });
  t.is((await call('/api/shops/1/items/2')).event.endpoint, '/api/shops/:shop/items/:item');
  t.is((await call('/api/me')).event.endpoint, '/api/me', 'the first that matches answers, and does not call the next');
  t.is((await call('/api/x')).event.endpoint, '/api/:last', 'the last one entered');
  const refused = await call('/api/me', { headers: { 'x-refuse': '1' } });
  t.is(refused.event.endpoint, '/api/me', 'the one that would have been entered, when middleware refused');
  t.is(refused.event.status, 401);
});

test('records requests without a route as unmatched', async (t) => {
  const { call } = await start(
    t,
    withRouter((router) =>
      router.get('/known', (ctx) => {
        ctx.body = '';
      }),
    ),
  );
  t.like((await call('/wp-login.php')).event, { endpoint: 'unmatched', status: 404, uri: '/wp-login.php' });
  t.like((await call('/known', { method: 'DELETE' })).event, { endpoint: 'unmatched', status: 405 });
});

test('records a thrown error with the status that the client receives, and passes it to the app', async (t) => {
  const { app, call } = await start(
    t,
    withRouter((router) =>
      router.get('/fails', () => {
        throw new Error('broken');
      }),
    ),
  );
  const seen: string[] = [];
  app.on('error', (error: Error) => seen.push(error.message));
  const { status, event } = await call('/fails');
  t.is(status, 500);
  t.like(event, { status: 500, endpoint: '/fails', size: 'Internal Server Error'.length });
  t.deepEqual(seen, ['broken']);
});

test('measures a stream to its end and counts its bytes', async (t) => {
  const { call } = await start(
    t,
    withRouter((router) =>
      router.get('/stream', (ctx) => {
        ctx.body = Readable.from(['ab', Buffer.alloc(100_000), 'cd']);
      }),
    ),
  );
  const { text, event } = await call('/stream');
  t.is(text.length, 100_004);
  t.is(event.size, 100_004);
});

test('records the sent size of HEAD responses, redirects and empty responses', async (t) => {
  const { call } = await start(
    t,
    withRouter((router) => {
      router.get('/page', (ctx) => {
        ctx.body = 'page';
      });
      router.get('/moved', (ctx) => ctx.redirect('/page'));
      router.get('/empty', (ctx) => {
        ctx.status = 204;
      });
    }),
  );
  t.like((await call('/page', { method: 'HEAD' })).event, { method: 'HEAD', status: 200, size: 0, endpoint: '/page' });
  const moved = await call('/moved');
  t.like(moved.event, { status: 302, size: moved.text.length });
  t.like((await call('/empty')).event, { status: 204, size: 0 });
});

test('counts the bytes of a request body as the app reads them', async (t) => {
  const { call } = await start(
    t,
    withRouter((router) =>
      router.post('/upload', async (ctx) => {
        const chunks = (await ctx.req.toArray()) as Buffer[];
        ctx.body = String(Buffer.concat(chunks).length);
      }),
    ),
  );
  const sized = await call('/upload', { method: 'POST', body: 'x'.repeat(50_000) });
  t.like(sized, { text: '50000' });
  t.is(sized.event.bytesRead, 50_000);
  const chunked = await call('/upload', {
    method: 'POST',
    body: 'y'.repeat(70_000),
    headers: { 'transfer-encoding': 'chunked' },
  });
  t.like(chunked, { text: '70000' });
  t.is(chunked.event.bytesRead, 70_000);
});

test('records status 0 if the client disconnects before the response', async (t) => {
  let entered: () => void = () => undefined;
  const handling = new Promise<void>((resolve) => {
    entered = resolve;
  });
  const { port, recorded } = await start(
    t,
    withRouter((router) =>
      router.get('/slow', () => {
        entered();
        return new Promise(() => undefined);
      }),
    ),
  );
  const socket = connect(port, '127.0.0.1');
  socket.write('GET /slow HTTP/1.1\r\nHost: a\r\n\r\n');
  await handling;
  socket.destroy();
  t.like(await recorded(), { status: 0, size: 0, endpoint: '/slow', clientIp: '127.0.0.1' });
});

test('records the sent status and size if the client disconnects during the response', async (t) => {
  const chunk = Buffer.alloc(1_000_000);
  const { port, recorded } = await start(
    t,
    withRouter((router) =>
      router.get('/large', (ctx) => {
        ctx.body = Readable.from(
          (function* () {
            for (;;) yield chunk;
          })(),
        );
      }),
    ),
  );
  const socket = connect(port, '127.0.0.1');
  socket.write('GET /large HTTP/1.1\r\nHost: a\r\n\r\n');
  await once(socket, 'data');
  socket.destroy();
  const event = await recorded();
  t.is(event.status, 200);
  t.true(event.size >= chunk.length && event.size % chunk.length === 0, String(event.size));
});

test('records an event stream without a duration', async (t) => {
  const { call } = await start(
    t,
    withRouter((router) =>
      router.get('/events', (ctx) => {
        ctx.type = 'text/event-stream; charset=utf-8';
        ctx.body = Readable.from(['data: 1\n\n']);
      }),
    ),
  );
  t.like((await call('/events')).event, { status: 200, durationMs: null, size: 9 });
});

test('emits errors of the recorder on the app and does not affect the response', async (t) => {
  const { app, call, events } = await start(
    t,
    withRouter((router) =>
      router.get('/', (ctx) => {
        ctx.body = 'fine';
      }),
    ),
  );
  t.deepEqual(events, []);
  const failing = new Koa();
  failing.use(
    requestMetrics({
      recorder: {
        record() {
          throw new Error('recorder broke');
        },
      },
    }),
  );
  failing.use((ctx) => {
    ctx.body = 'fine';
  });
  const server = createServer((request, response) => void failing.callback()(request, response)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const reported = once(failing, 'error') as Promise<[Error]>;
  const response = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  t.is(await response.text(), 'fine');
  t.is((await reported)[0].message, 'recorder broke');
  t.is((await call('/')).text, 'fine');
  t.is(app.listenerCount('error'), 1);
});

test('advances the time by the monotonic clock and follows changes of the wall clock', async (t) => {
  let monotonic = 1000;
  let wall = 1_795_000_000_000;
  const { call } = await start(
    t,
    (app) =>
      app.use((ctx) => {
        ctx.body = '';
      }),
    { monotonicMs: () => monotonic, nowMs: () => wall },
  );
  t.like((await call('/')).event, { timeMs: 1_795_000_000_000, timeNs: 0, durationMs: 0 });
  monotonic += 1.234567;
  wall += 1;
  t.like((await call('/')).event, { timeMs: 1_795_000_000_001, timeNs: 234_567 });
  wall += 3_600_000;
  t.like((await call('/')).event, { timeMs: 1_795_003_600_001, timeNs: 0 });
});
