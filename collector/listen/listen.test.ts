import { connect, type Socket } from 'node:net';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { UsageError } from '../../shared/errors.js';
import { until } from '../../test/until.js';
import { LineSources } from '../line-sources.js';
import type { LineBeginning } from '../lines.js';
import { parseListenAddress } from './address.js';
import { listen, type Listener } from './listen.js';
import { allowList, ConnectionLimit, parseCidr } from './peers.js';
import { openStream } from './sockets.js';

test('several sockets of every kind are listened on at once', async (t) => {
  const path = join(mkdtempSync(join(tmpdir(), 'sink-')), 'sink.sock');
  const { listeners, got } = await start(['tcp://127.0.0.1:0', 'tcp://127.0.0.1:0', 'tcp6://[::1]:0', `unix://${path}`]);
  for (const [at, { address }] of listeners.entries()) {
    await send(address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port }, `line ${at}\n`);
  }
  await until('all lines came in', () => got.lines.length === listeners.length);
  t.deepEqual(got.lines.toSorted(), ['line 0', 'line 1', 'line 2', 'line 3']);
  await stopAll(listeners);
});

test('a peer that is not allowed, and one too many, are turned away before a byte is read', async (t) => {
  const { listeners, got } = await start(['tcp://127.0.0.1:0'], { allow: '10.0.0.0/8' });
  await send(portOf(listeners[0]!), 'line\n');
  await until('it was turned away', () => got.refused.length === 1);
  t.deepEqual(got.refused, ['not-allowed']);
  t.deepEqual(got.lines, []);
  await stopAll(listeners);

  const busy = await start(['tcp://127.0.0.1:0', 'tcp://127.0.0.1:0'], { connectionsMax: 1 });
  const held = await open(portOf(busy.listeners[0]!));
  held.write('first\n');
  await until('the first has sent a line', () => busy.got.lines.length === 1);
  await send(portOf(busy.listeners[1]!), 'line\n');
  await until('the second was turned away', () => busy.got.refused.length === 1);
  t.deepEqual(busy.got.refused, ['too-many-of-peer']);
  held.write('still here\n');
  await until('the first is still read', () => busy.got.lines.length === 2);
  held.destroy();
  await until('its place is free', () => busy.connections.count === 0);
  t.is(busy.got.evicted, 0);
  await stopAll(busy.listeners);
});

test('1,000 idle connections keep nobody out: the one that has been idle longest makes room, and one that has sent a line never does', async (t) => {
  const connectionsMax = 1000;
  const path = join(mkdtempSync(join(tmpdir(), 'sink-')), 'sink.sock');
  const { listeners, got, connections } = await start(['tcp://127.0.0.1:0', `unix://${path}`], { connectionsMax });
  const place = portOf(listeners[0]!);
  const early = await open(place);
  let isEarlyOpen = true;
  early.resume().on('close', () => { isEarlyOpen = false; });
  early.write('early\n');
  await until('it was read', () => got.lines.length === 1);
  // A process of its own, as it is a thousand descriptors.
  const flood = spawn(process.execPath, ['--eval', `
    const net = require('node:net');
    let open = 0;
    for (let at = 0; at < ${connectionsMax}; at += 1) {
      const socket = net.connect(${place.port}, '127.0.0.1', () => { socket.write('x'); open += 1; if (open === ${connectionsMax}) console.log('all'); });
      socket.on('error', () => undefined).resume();
    }
    setInterval(() => undefined, 1000);`], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => flood.kill('SIGKILL'));
  await once(flood.stdout, 'data');
  await until('one address has its share', () => connections.count === 750 && got.evicted + got.refused.length === connectionsMax - 749);
  const late = await Promise.all(Array.from({ length: 20 }, () => open(place)));
  for (const [at, socket] of late.entries()) socket.write(`late ${at}\n`);
  await until('all of them are read', () => got.lines.length === 21);
  const unix = await Promise.all(Array.from({ length: 400 }, () => open({ path })));
  await until('the flood has every unreserved connection and no other', () => connections.count === 900 && got.evicted + got.refused.length === connectionsMax - 749 + 20 + 250);
  early.write('again\n');
  await until('the first one is read', () => got.lines.includes('again'));
  t.true(isEarlyOpen);
  for (const socket of [early, ...late, ...unix]) socket.destroy();
  flood.kill('SIGKILL');
  await until('all places are free', () => connections.count === 0);
  await stopAll(listeners);
});

test('a line that a broken connection left unfinished is no line', async (t) => {
  const { listeners, got } = await start(['tcp://127.0.0.1:0']);
  await send(portOf(listeners[0]!), 'whole\nhalf');
  await until('the half was noticed', () => got.unterminated === 1);
  t.deepEqual(got.lines, ['whole']);
  await stopAll(listeners);
});

test('a line that takes too long ends its connection, and others go on', async (t) => {
  const { listeners, got, connections } = await start(['tcp://127.0.0.1:0'], { lineMsMax: 200 });
  const [slow, quick, idle] = await Promise.all([open(portOf(listeners[0]!)), open(portOf(listeners[0]!)), open(portOf(listeners[0]!))]);
  slow.on('error', () => undefined);
  await until('all are in', () => connections.count === 3);
  idle.write('before\n');
  const drip = setInterval(() => {
    slow.write('x');
    quick.write('whole\nbegun'); // always in the middle of a line, and never of the same one
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

test('lines that have begun share a bound of memory: beyond it one is skipped, and all is given back', async (t) => {
  const { listeners, got, heldMemory } = await start(['tcp://127.0.0.1:0'], { heldBytesMax: 100_000 });
  const peers = await Promise.all(Array.from({ length: 5 }, () => open(portOf(listeners[0]!))));
  for (const peer of peers) peer.write('x'.repeat(40_000));
  await until('some found no room', () => got.noRoom >= 3);
  t.true(heldMemory.bytes <= 100_000);
  for (const peer of peers) peer.write('\nnext\n');
  await until('the next lines are read', () => got.lines.filter((line) => line === 'next').length === 5);
  t.is(got.lines.length, 10 - got.noRoom);
  for (const peer of peers) peer.destroy();
  await until('nothing is held', () => heldMemory.bytes === 0);
  await stopAll(listeners);
});

test('one connection that never pauses does not keep others waiting', async (t) => {
  let floods = 0;
  const { listeners, got } = await start(['tcp://127.0.0.1:0'], { isWanted: (line) => {
    if (line === 'quiet') return true;
    floods += 1;
    return false;
  } });
  const place = portOf(listeners[0]!);
  // A process of its own, so that it does not pause while this one reads.
  const firehose = spawn(process.execPath, ['--eval', `
    const socket = require('node:net').connect(${place.port}, ${JSON.stringify(place.host)});
    const lines = Buffer.from('firehose firehose firehose firehose\\n'.repeat(2000));
    const write = () => { while (socket.write(lines)); socket.once('drain', write); };
    socket.on('error', () => process.exit());
    write();`], { stdio: 'inherit' });
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

test('in a flood, a connection is handed over without losing what its socket holds for the next turn', async (t) => {
  let leave: (() => void) | undefined;
  let handedOver: { readonly socket: Socket; readonly beginning: LineBeginning } | undefined;
  const { listeners, got } = await start(['tcp://127.0.0.1:0'], {
    // As the handover of a restart: the connection stays open, for another to go on with.
    open: async (address, options) => {
      const opened = await openStream(address, options);
      return {
        ...opened,
        async close() { void opened.close(); },
        handBack(socket, beginning) {
          handedOver = { socket: socket.removeAllListeners(), beginning: beginning() };
          return true;
        },
      };
    },
    isWanted: (line) => {
      if (line === '1000') setImmediate(() => { leave!(); });
      return true;
    },
  });
  const left = new Promise<void>((resolve) => { leave = () => { void stopAll(listeners).then(resolve); }; });
  const place = portOf(listeners[0]!);
  // A process of its own, so that all of it waits in the kernel.
  const flood = spawn(process.execPath, ['--eval', `
    const lines = Array.from({ length: 200_000 }, (_, at) => at + '\\n').join('');
    require('node:net').connect(${place.port}, ${JSON.stringify(place.host)}).end(lines);`], { stdio: 'inherit' });
  await left;
  const { socket, beginning } = handedOver!;
  let rest = beginning.bytes.toString();
  socket.on('data', (chunk: Buffer) => { rest += chunk.toString(); }).resume();
  await once(socket, 'end');
  socket.destroy();
  await once(flood, 'exit');
  t.true(got.lines.length < 200_000);
  t.deepEqual([...got.lines, ...rest.trimEnd().split('\n')], Array.from({ length: 200_000 }, (_, at) => String(at)));
});

test('a stopping listener takes what has arrived, and ends its peers without a reset', async (t) => {
  const { listeners, got } = await start(['tcp://127.0.0.1:0']);
  const socket = await open(portOf(listeners[0]!));
  let error: Error | undefined;
  socket.on('error', (reason) => { error = reason; });
  const ended = new Promise<void>((resolve) => { socket.resume().once('end', resolve); });
  const line = `${'x'.repeat(999)}\n`;
  await new Promise<void>((resolve) => { socket.write(line.repeat(2000), () => { resolve(); }); }); // 2 MB: the kernel has it
  await stopAll(listeners);
  await ended;
  t.is(got.lines.length, 2000);
  t.is(error, undefined);
});

test('an address that is taken stops the start, names the address and what to do, and frees the others', async (t) => {
  const { listeners } = await start(['tcp://127.0.0.1:0']);
  const { port } = portOf(listeners[0]!);
  const error = await t.throwsAsync(start(['udp://127.0.0.1:0', `tcp://127.0.0.1:${port}`]), { instanceOf: UsageError });
  t.is(error.message, `Cannot listen on tcp://127.0.0.1:${port}: the address is in use. Stop the other process, or set COLLECTOR_LISTEN to a free one.`);
  await t.throwsAsync(start(['tcp://192.0.2.1:0']), { instanceOf: UsageError, message: /192\.0\.2\.1.*does not have that address/ });
  await stopAll(listeners);
});

test('a unix socket has the mode that is set, replaces one that a dead process left, and nothing else', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'sink-'));
  const path = join(folder, 'sink.sock');
  const child = spawn(process.execPath, ['--eval', `require('node:net').createServer().listen(${JSON.stringify(path)}, () => console.log('listening'))`], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  await t.throwsAsync(start([`unix://${path}`]), { instanceOf: UsageError, message: /the address is in use/ }, 'another process listens on it');
  child.kill('SIGKILL');
  await once(child, 'exit');
  t.true(statSync(path).isSocket(), 'it was left behind');

  const { listeners, got } = await start([`unix://${path}`]);
  t.is(statSync(path).mode & 0o777, 0o600);
  await send({ path }, 'line\n');
  await until('the line came in', () => got.lines.length === 1);
  await stopAll(listeners);
  t.false(existsSync(path), 'a graceful stop leaves nothing behind');

  writeFileSync(path, 'precious');
  await t.throwsAsync(start([`unix://${path}`]), { instanceOf: UsageError, message: /a file of another kind/ });
  t.is(readFileSync(path, 'utf8'), 'precious');
});

test('datagrams that the kernel dropped are known', async (t) => {
  if (!existsSync('/proc/net/udp')) {
    t.pass('only Linux says');
    return;
  }
  const { listeners, got } = await start(['udp://127.0.0.1:0']);
  const { port } = portOf(listeners[0]!);
  t.is(await listeners[0]!.lost(), 0);
  // A process of its own sends far more than the buffer holds, while this one does not read.
  const sent = 40_000;
  spawnSync(process.execPath, ['--eval', `
    const socket = require('node:dgram').createSocket('udp4');
    let left = ${sent};
    for (let at = 0; at < ${sent}; at += 1) socket.send(Buffer.alloc(1000, 120), ${port}, '127.0.0.1', () => { left -= 1; if (left === 0) socket.close(); });
  `]);
  await until('every datagram is accounted for', async () => sent === got.lines.length + (await listeners[0]!.lost() ?? 0));
  t.true(got.lines.length > 0);
  t.true((await listeners[0]!.lost())! > 0);
  await stopAll(listeners);
});

async function start(addresses: readonly string[], { allow = '127.0.0.0/8,::1', connectionsMax = 100, lineMsMax = 60_000, heldBytesMax = 1e9, isWanted = (line: string): boolean => line !== '', open: openWith = openStream } = {}) {
  const got = { lines: [] as string[], refused: [] as string[], unterminated: 0, evicted: 0, tooLong: 0, noRoom: 0 };
  const heldMemory = { bytes: 0, bytesMax: heldBytesMax };
  const connections = new ConnectionLimit(connectionsMax);
  const listeners = await listen(addresses.map(parseListenAddress), {
    lineBytesMax: 65_536,
    unixMode: 0o600,
    connections,
    sources: new LineSources(),
    lineMsMax,
    heldMemory,
    isAllowed: allowList(allow.split(',').map(parseCidr)),
    onLine: (line) => { if (isWanted(line)) got.lines.push(line); },
    onTooLong: () => { got.tooLong += 1; },
    onUnterminated: () => { got.unterminated += 1; },
    onNoRoom: () => { got.noRoom += 1; },
    onRefused: (why) => { got.refused.push(why); },
    onEvicted: () => { got.evicted += 1; },
    onDropped: () => undefined,
    linesUnderstood: () => got.lines.length,
    onError: () => undefined,
  }, openWith);
  return { listeners, got, connections, heldMemory };
}

function portOf({ address }: Listener): { host: string; port: number } {
  if (address.kind === 'unix') throw new Error('a unix socket has no port');
  return address;
}

function open(where: { host: string; port: number } | { path: string }): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(where, () => { resolve(socket); }).once('error', reject);
  });
}

async function send(where: { host: string; port: number } | { path: string }, text: string): Promise<void> {
  const socket = await open(where);
  socket.on('error', () => undefined); // one that is turned away may see a reset
  await new Promise<void>((resolve) => { socket.end(text, resolve).once('close', () => { resolve(); }); });
}

async function stopAll(listeners: readonly Listener[]): Promise<void> {
  await Promise.all(listeners.map((listener) => listener.stop()));
}
