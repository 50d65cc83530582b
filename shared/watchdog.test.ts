import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test from 'ava';
import { noteMissingPart } from '../test/missing-part.js';
import { folderOf, runProgram } from '../test/program.js';
import { until } from '../test/until.js';

const needs = ['systemd-notify', 'python3'].filter((command) => spawnSync(command, ['--version']).status !== 0);
const testWithSystemd = needs.length === 0 ? test : test.skip;
if (needs.length > 0)
  noteMissingPart(
    `tests of the watchdog: ${needs.join(', ')} is not on the PATH. It is in systemd, and Python in Debian's python3.`,
  );

/**
 * Stands in for systemd: a datagram socket that prints each message and closes the descriptor that the sender waits
 * for.
 */
const notifySocket = `
import os, socket, struct, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
server.bind(sys.argv[1])
print("listening", flush=True)
while True:
    text, fds, _, _ = socket.recv_fds(server, 4096, 4)
    for fd in fds: os.close(fd)
    print(text.decode().strip().replace("\\n", " "), flush=True)
`;

testWithSystemd(
  'sends heartbeats to systemd while its event loop runs, and only if systemd watches this process',
  async (t) => {
    const folder = await folderOf(t);
    const path = join(folder, 'notify');
    const server = spawn('python3', ['-c', notifySocket, path], { stdio: ['ignore', 'pipe', 'inherit'] });
    t.teardown(() => server.kill());
    const got: string[] = [];
    createInterface({ input: server.stdout }).on('line', (line) => got.push(line));
    await until('it listens', () => got.includes('listening'));
    const beats = (): number => got.filter((line) => line === 'WATCHDOG=1').length;
    const settings = {
      NOTIFY_SOCKET: path,
      WATCHDOG_USEC: '1000000',
      COLLECTOR_LISTEN: 'tcp://127.0.0.1:0',
      COLLECTOR_HTTP: 'off',
      WEB_LISTEN: '127.0.0.1:0',
    };

    const program = await runProgram(['start', '--restartable'], settings);
    t.teardown(() => program.stop());
    await until('it has started and sends heartbeats', () => program.stdout().includes('Dashboard') && beats() > 3);
    process.kill(program.pid, 'SIGSTOP');
    await until('no heartbeat arrives for a second', async () => {
      const before = got.length;
      await new Promise((resolve) => {
        setTimeout(resolve, 1000);
      });
      return got.length === before;
    });
    process.kill(program.pid, 'SIGCONT');
    const before = beats();
    await until('heartbeats resume', () => beats() > before);
    t.is(await program.stop('SIGTERM'), 0);
    t.notRegex(program.stderr(), /watchdog/);

    const stopped = got.length;
    const other = await runProgram(['start'], { ...settings, WATCHDOG_PID: '1' });
    await until('it has started', () => other.stdout().includes('Dashboard'));
    await other.stop();
    t.is(got.length, stopped, 'the watchdog watches another process');
    server.kill();
    await once(server, 'exit');
  },
);

test('says what to do when systemd cannot be notified', async (t) => {
  const program = await runProgram(['start'], {
    NOTIFY_SOCKET: '/nowhere',
    WATCHDOG_USEC: '1000000',
    PATH: '/nowhere',
    COLLECTOR_LISTEN: 'tcp://127.0.0.1:0',
    COLLECTOR_HTTP: 'off',
    WEB_LISTEN: '127.0.0.1:0',
  });
  await until('it says so', () => program.stderr().includes('NotifyAccess=all'));
  t.regex(program.stderr(), /systemd-notify/);
  await program.stop();
  t.is(program.stderr().split('NotifyAccess=all').length, 2, 'once');
});
