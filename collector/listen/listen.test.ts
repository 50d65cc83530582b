import { connect, type Socket } from 'node:net';
import { spawn, spawnSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { UsageError } from '../../shared/errors.js';
import { until } from '../../test/until.js';
import { LineSources } from '../line-sources.js';
import type { PartialLine } from '../lines.js';
import { parseListenAddress } from './address.js';
import { listen } from './listen.js';
import type { Listener } from './listener.js';
import { allowList, ConnectionLimit, parseCidr } from './peers.js';
import { openStream, type OpenStream, type Unread } from './sockets.js';

test('listens on several sockets of every kind', async (t) => {
  const path = join(mkdtempSync(join(tmpdir(), 'sink-')), 'sink.sock');
  const { listeners, got } = await start([
    'tcp://127.0.0.1:0',
    'tcp://127.0.0.1:0',
    'tcp6://[::1]:0',
    `unix://${path}`,
  ]);
  for (const [at, { address }] of listeners.entries()) {
    await send(
      address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port },
      `line ${at}\n`,
    );
  }
  await until('all lines have arrived', () => got.lines.length === listeners.length);
  t.deepEqual(got.lines.toSorted(), ['line 0', 'line 1', 'line 2', 'line 3']);
  await stopAll(listeners);
});

test('refuses a peer that is not allowed, and one connection too many, before it reads a byte', async (t) => {
  const { listeners, got } = await start(['tcp://127.0.0.1:0'], { allow: '10.0.0.0/8' });
  await send(portOf(listeners[0]!), 'line\n');
  await until('it was refused', () => got.refused.length === 1);
  t.deepEqual(got.refused, ['not-allowed']);
  t.deepEqual(got.lines, []);
  await stopAll(listeners);

  const busy = await start(['tcp://127.0.0.1:0', 'tcp://127.0.0.1:0'], { connectionsMax: 1 });
  const held = await open(portOf(busy.listeners[0]!));
  held.write('first\n');
  await until('the first has sent a line', () => busy.got.lines.length === 1);
  await send(portOf(busy.listeners[1]!), 'line\n');
  await until('the second was refused', () => busy.got.refused.length === 1);
  t.deepEqual(busy.got.refused, ['too-many-of-peer']);
  held.write('still here\n');
  await until('the first is still read', () => busy.got.lines.length === 2);
  held.destroy();
  await until('its connection is released', () => busy.connections.count === 0);
  t.is(busy.got.evicted, 0);
  await stopAll(busy.listeners);
});

test('evicts the longest of 1,000 idle connections, and never one that has sent a line', async (t) => {
  const connectionsMax = 1000;
  const path = join(mkdtempSync(join(tmpdir(), 'sink-')), 'sink.sock');
  const { listeners, got, connections } = await start(['tcp://127.0.0.1:0', `unix://${path}`], { connectionsMax });
  const place = portOf(listeners[0]!);
  const early = await open(place);
  let isEarlyOpen = true;
  early.resume().on('close', () => {
    isEarlyOpen = false;
  });
  early.write('early\n');
  await until('it was read', () => got.lines.length === 1);
  // In its own process, since it needs a thousand descriptors.
  const flood = spawn(
    process.execPath,
    [
      '--eval',
      `
    const net = require('node:net');
    let open = 0;
    for (let at = 0; at < ${connectionsMax}; at += 1) {
      const socket = net.connect(${place.port}, '127.0.0.1', () => { socket.write('x'); open += 1; if (open === ${connectionsMax}) console.log('all'); });
      socket.on('error', () => undefined).resume();
    }
    setInterval(() => undefined, 1000);`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  t.teardown(() => flood.kill('SIGKILL'));
  await once(flood.stdout, 'data');
  await until(
    'one address has its share',
    () => connections.count === 750 && got.evicted + got.refused.length === connectionsMax - 749,
  );
  const late = await Promise.all(Array.from({ length: 20 }, () => open(place)));
  for (const [at, socket] of late.entries()) socket.write(`late ${at}\n`);
  await until('all of them are read', () => got.lines.length === 21);
  const unix = await Promise.all(Array.from({ length: 400 }, () => open({ path })));
  await until(
    'the flood has every unreserved connection and no other',
    () => connections.count === 900 && got.evicted + got.refused.length === connectionsMax - 749 + 20 + 250,
  );
  early.write('again\n');
  await until('the first one is read', () => got.lines.includes('again'));
  t.true(isEarlyOpen);
  for (const socket of [early, ...late, ...unix]) socket.destroy();
  flood.kill('SIGKILL');
  await until('all connections are released', () => connections.count === 0);
  await stopAll(listeners);
});

test('does not count the partial line of a broken connection as a line', async (t) => {
  const { listeners, got } = await start(['tcp://127.0.0.1:0']);
  await send(portOf(listeners[0]!), 'whole\nhalf');
  await until('the partial line was counted', () => got.unterminated === 1);
  t.deepEqual(got.lines, ['whole']);
  await stopAll(listeners);
});

test('closes a connection whose line takes too long, and no other', async (t) => {
  const { listeners, got, connections } = await start(['tcp://127.0.0.1:0'], { lineMsMax: 200 });
  const [slow, quick, idle] = await Promise.all([
    open(portOf(listeners[0]!)),
    open(portOf(listeners[0]!)),
    open(portOf(listeners[0]!)),
  ]);
  slow.on('error', () => undefined);
  await until('all are in', () => connections.count === 3);
  idle.write('before\n');
  const drip = setInterval(() => {
    slow.write('x');
    quick.write('whole\nbegun'); // always within a line, but never the same one
  }, 20);
  await until('it is closed', () => connections.count === 2);
  clearInterval(drip);
  t.is(got.unterminated, 1);
  quick.write('\n');
  idle.write('after\n');
  await until('the others are read', () => got.lines.includes('after'));
  quick.destroy();
  idle.destroy();
  await stopAll(listeners);
});

test('limits the memory of all partial lines: skips lines beyond it, and releases it', async (t) => {
  const { listeners, got, partialLineMemory } = await start(['tcp://127.0.0.1:0'], { heldBytesMax: 100_000 });
  const peers = await Promise.all(Array.from({ length: 5 }, () => open(portOf(listeners[0]!))));
  for (const peer of peers) peer.write('x'.repeat(40_000));
  await until('some found no room', () => got.noRoom >= 3);
  t.true(partialLineMemory.bytes <= 100_000);
  for (const peer of peers) peer.write('\nnext\n');
  await until('the next lines are read', () => got.lines.filter((line) => line === 'next').length === 5);
  t.is(got.lines.length, 10 - got.noRoom);
  for (const peer of peers) peer.destroy();
  await until('all memory is released', () => partialLineMemory.bytes === 0);
  await stopAll(listeners);
});

test('is not delayed by a connection that never pauses', async (t) => {
  let floods = 0;
  const { listeners, got } = await start(['tcp://127.0.0.1:0'], {
    isWanted: (line) => {
      if (line === 'quiet') return true;
      floods += 1;
      return false;
    },
  });
  const place = portOf(listeners[0]!);
  // In its own process, so that it does not pause while this one reads.
  const firehose = spawn(
    process.execPath,
    [
      '--eval',
      `
    const socket = require('node:net').connect(${place.port}, ${JSON.stringify(place.host)});
    const lines = Buffer.from('firehose firehose firehose firehose\\n'.repeat(2000));
    const write = () => { while (socket.write(lines)); socket.once('drain', write); };
    socket.on('error', () => process.exit());
    write();`,
    ],
    { stdio: 'inherit' },
  );
  await until('it runs', () => floods > 10_000);
  const quiet = await Promise.all(Array.from({ length: 20 }, () => open(place)));
  for (const peer of quiet) peer.write('quiet\n');
  await until('all of them are read while it goes on', () => got.lines.length === 20);
  const before = floods;
  await until('it still goes on', () => floods > before);
  t.is(firehose.exitCode, null);
  firehose.kill('SIGKILL');
  await once(firehose, 'exit');
  for (const peer of quiet) peer.destroy();
  await stopAll(listeners);
});

test('hands a connection over during a flood without losing the bytes that its socket has buffered', async (t) => {
  let leave: (() => void) | undefined;
  let handedOver: { readonly socket: Socket; readonly beginning: PartialLine } | undefined;
  const { listeners, got } = await start(['tcp://127.0.0.1:0'], {
    // Like the handover at a restart: the connection stays open for another reader.
    open: async (address, options) => {
      const opened = await openStream(address, options);
      return {
        ...opened,
        async close() {
          void opened.close();
        },
        release(socket, beginning) {
          handedOver = { socket: socket.removeAllListeners(), beginning: beginning() };
          return true;
        },
      };
    },
    isWanted: (line) => {
      if (line === '1000')
        setImmediate(() => {
          leave!();
        });
      return true;
    },
  });
  const left = new Promise<void>((resolve) => {
    leave = () => {
      void stopAll(listeners).then(resolve);
    };
  });
  const place = portOf(listeners[0]!);
  // In its own process, so that all of it is buffered in the kernel.
  const flood = spawn(
    process.execPath,
    [
      '--eval',
      `
    const lines = Array.from({ length: 200_000 }, (_, at) => at + '\\n').join('');
    require('node:net').connect(${place.port}, ${JSON.stringify(place.host)}).end(lines);`,
    ],
    { stdio: 'inherit' },
  );
  await left;
  const { socket, beginning } = handedOver!;
  let rest = beginning.bytes.toString();
  socket
    .on('data', (chunk: Buffer) => {
      rest += chunk.toString();
    })
    .resume();
  await once(socket, 'end');
  socket.destroy();
  await once(flood, 'exit');
  t.true(got.lines.length < 200_000);
  t.deepEqual(
    [...got.lines, ...rest.trimEnd().split('\n')],
    Array.from({ length: 200_000 }, (_, at) => String(at)),
  );
});

test('reads what has arrived when it stops, and closes connections without a reset', async (t) => {
  const { listeners, got } = await start(['tcp://127.0.0.1:0']);
  const socket = await open(portOf(listeners[0]!));
  let error: Error | undefined;
  socket.on('error', (reason) => {
    error = reason;
  });
  const ended = new Promise<void>((resolve) => {
    socket.resume().once('end', resolve);
  });
  const line = `${'x'.repeat(999)}\n`;
  await new Promise<void>((resolve) => {
    socket.write(line.repeat(2000), () => {
      resolve();
    });
  }); // 2 MB: the kernel has it
  await stopAll(listeners);
  await ended;
  t.is(got.lines.length, 2000);
  t.is(error, undefined);
});

test('fails if an address is in use, says what to do, and releases the other addresses', async (t) => {
  const { listeners } = await start(['tcp://127.0.0.1:0']);
  const { port } = portOf(listeners[0]!);
  const error = await t.throwsAsync(start(['udp://127.0.0.1:0', `tcp://127.0.0.1:${port}`]), {
    instanceOf: UsageError,
  });
  t.is(
    error.message,
    `Cannot listen on tcp://127.0.0.1:${port}: the address is in use. Stop the other process, or set COLLECTOR_LISTEN to a free one.`,
  );
  await t.throwsAsync(start(['tcp://192.0.2.1:0']), {
    instanceOf: UsageError,
    message: /192\.0\.2\.1.*does not have that address/,
  });
  await stopAll(listeners);
});

test('creates a unix socket with the configured mode, and replaces a stale socket but no other file', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'sink-'));
  const path = join(folder, 'sink.sock');
  const child = spawn(
    process.execPath,
    ['--eval', `require('node:net').createServer().listen(${JSON.stringify(path)}, () => console.log('listening'))`],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  await once(child.stdout, 'data');
  await t.throwsAsync(
    start([`unix://${path}`]),
    { instanceOf: UsageError, message: /the address is in use/ },
    'another process listens on it',
  );
  child.kill('SIGKILL');
  await once(child, 'exit');
  t.true(statSync(path).isSocket(), 'it is stale');

  const { listeners, got } = await start([`unix://${path}`]);
  t.is(statSync(path).mode & 0o777, 0o600);
  await send({ path }, 'line\n');
  await until('the line has arrived', () => got.lines.length === 1);
  await stopAll(listeners);
  t.false(existsSync(path), 'a graceful stop removes it');

  writeFileSync(path, 'precious');
  await t.throwsAsync(start([`unix://${path}`]), {
    instanceOf: UsageError,
    message: /the path exists and is not a socket/,
  });
  t.is(readFileSync(path, 'utf8'), 'precious');
});

test('reads each datagram as whole lines, whether it ends in a line ending or not, without memory for partial lines', async (t) => {
  const { listeners, got } = await start(['udp://127.0.0.1:0'], { lineBytesMax: 10, heldBytesMax: 0 });
  const { port, host } = portOf(listeners[0]!);
  const socket = createSocket('udp4');
  const fits = '0123456789';
  for (const datagram of [
    '',
    'one',
    'two\n',
    'three\nfour',
    'five\r\n\r\nsix\r',
    `${fits}\r\n`,
    `${fits}!`,
    `${fits}!\n${fits}!\nafter`,
  ])
    await new Promise((sent) => socket.send(datagram, port, host, sent));
  socket.close();
  await until('the last datagram is read', () => got.lines.includes('after'));
  t.deepEqual(got.lines, ['one', 'two', 'three', 'four', 'five', 'six', fits, 'after']);
  t.like(got, { tooLong: 3, unterminated: 0, noRoom: 0 });
  await stopAll(listeners);
});

test('counts datagrams that the kernel dropped', async (t) => {
  if (!existsSync('/proc/net/udp')) {
    t.pass('only Linux reports them');
    return;
  }
  const { listeners, got } = await start(['udp://127.0.0.1:0']);
  const { port } = portOf(listeners[0]!);
  t.is(await listeners[0]!.lost(), 0);
  // Another process sends far more than the buffer holds while this one does not read.
  const sent = 40_000;
  spawnSync(process.execPath, [
    '--eval',
    `
    const socket = require('node:dgram').createSocket('udp4');
    let left = ${sent};
    for (let at = 0; at < ${sent}; at += 1) socket.send(Buffer.alloc(1000, 120), ${port}, '127.0.0.1', () => { left -= 1; if (left === 0) socket.close(); });
  `,
  ]);
  await until(
    'every datagram is accounted for',
    async () => sent === got.lines.length + ((await listeners[0]!.lost()) ?? 0),
  );
  t.true(got.lines.length > 0);
  t.true((await listeners[0]!.lost())! > 0);
  await stopAll(listeners);
});

test('accepts lines read by the supervisor from allowed peers only, and attributes them to their peer', async (t) => {
  let onUnread: ((unread: Unread) => void) | undefined;
  const sources = new LineSources();
  const peers: string[] = [];
  const { listeners, got } = await start(['tcp://127.0.0.1:0'], {
    allow: '10.0.0.0/8',
    sources,
    open: (address, options) => {
      ({ onUnread } = options);
      return openStream(address, options);
    },
    isWanted: () => {
      peers.push(sources.current.peer);
      return true;
    },
  });
  const read = { beginning: undefined, bytes: Buffer.from('first\nsecond\n'), droppedLines: 3 };
  onUnread!({ ...read, address: 'tcp://127.0.0.1:0', remoteAddress: '192.0.2.1' });
  onUnread!({ ...read, address: 'tcp://127.0.0.1:0', remoteAddress: '::ffff:10.0.0.1' });
  onUnread!({ ...read, address: 'unix:///run/sink.sock', remoteAddress: undefined });
  await stopAll(listeners);
  t.deepEqual(got.refused, ['not-allowed']);
  t.deepEqual(got.lines, ['first', 'second', 'first', 'second']);
  t.is(got.dropped, 6);
  t.deepEqual(peers, ['10.0.0.1', '10.0.0.1', 'unix:///run/sink.sock', 'unix:///run/sink.sock']);
  t.deepEqual(sources.json(), []);
});

const openHere: OpenStream = openStream;

async function start(
  addresses: readonly string[],
  {
    allow = '127.0.0.0/8,::1',
    connectionsMax = 100,
    lineMsMax = 60_000,
    lineBytesMax = 65_536,
    heldBytesMax = 1e9,
    sources = new LineSources(),
    isWanted = (line: string): boolean => line !== '',
    open: openWith = openHere,
  } = {},
) {
  const got = {
    lines: [] as string[],
    refused: [] as string[],
    unterminated: 0,
    evicted: 0,
    tooLong: 0,
    noRoom: 0,
    dropped: 0,
  };
  const partialLineMemory = { bytes: 0, bytesMax: heldBytesMax };
  const connections = new ConnectionLimit(connectionsMax);
  const listeners = await listen(
    addresses.map(parseListenAddress),
    {
      lineBytesMax,
      unixMode: 0o600,
      connections,
      sources,
      lineMsMax,
      partialLineMemory,
      isAllowed: allowList(allow.split(',').map(parseCidr)),
      onLine: (bytes, from, to) => {
        const line = bytes.toString('utf8', from, to);
        if (isWanted(line)) got.lines.push(line);
      },
      onTooLong: () => {
        got.tooLong += 1;
      },
      onUnterminated: () => {
        got.unterminated += 1;
      },
      onMemoryFull: () => {
        got.noRoom += 1;
      },
      onRefused: (why) => {
        got.refused.push(why);
      },
      onEvicted: () => {
        got.evicted += 1;
      },
      onDropped: (lines) => {
        got.dropped += lines;
      },
      linesUnderstood: () => got.lines.length,
      onError: () => undefined,
    },
    openWith,
  );
  return { listeners, got, connections, partialLineMemory };
}

function portOf({ address }: Listener): { host: string; port: number } {
  if (address.kind === 'unix') throw new Error('a unix socket has no port');
  return address;
}

function open(where: { host: string; port: number } | { path: string }): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(where, () => {
      resolve(socket);
    }).once('error', reject);
  });
}

async function send(where: { host: string; port: number } | { path: string }, text: string): Promise<void> {
  const socket = await open(where);
  socket.on('error', () => undefined); // a refused one may see a reset
  await new Promise<void>((resolve) => {
    socket.end(text, resolve).once('close', () => {
      resolve();
    });
  });
}

async function stopAll(listeners: readonly Listener[]): Promise<void> {
  await Promise.all(listeners.map((listener) => listener.stop()));
}
