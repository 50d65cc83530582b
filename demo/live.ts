import { once } from 'node:events';
import { connect } from 'node:net';
import { messageOf } from '../shared/errors.js';
import type { Log } from '../shared/log.js';
import type { Recorder } from '../shared/record/recorder.js';
import { caddyLine } from './caddy-line.js';
import type { DemoRequest, Traffic } from './traffic.js';

/** What live traffic goes on from. */
export interface LiveOptions {
  readonly traffic: Traffic;
  /** When the demo's time began, in milliseconds since 1970: the first second that is sent. */
  readonly startMs: number;
  /** The collector's TCP address. */
  readonly collector: { readonly host: string; readonly port: number };
  /** Takes what the app measured, as its middleware would hand it over. */
  readonly appRecorder: Pick<Recorder, 'record'>;
  readonly log: Log;
  /** Default: `Date.now`. */
  readonly now?: () => number;
}

/** How often what has happened is sent, in milliseconds. */
const tickMs = 100;
/** After a sleep of the machine, the demo goes on from here: seconds that it makes up for. */
const behindMaxS = 600;

/**
 * Sends each request's log line to the collector when its time has come. Resolves when it is connected; `stop` ends the
 * connection.
 */
export async function startLive({
  traffic,
  startMs,
  collector,
  appRecorder,
  log,
  now = Date.now,
}: LiveOptions): Promise<{ stop(): Promise<void> }> {
  const socket = connect({ host: collector.host, port: collector.port });
  await once(socket, 'connect'); // rejects on 'error'
  socket.resume(); // the collector says nothing, and its end is to be noticed
  socket.on('error', (error) => {
    log.error(`The demo's connection to the collector failed, and no more requests come in: ${messageOf(error)}`);
  });
  let nextS = 0;
  let waiting: DemoRequest[] = [];
  const timer = setInterval(tick, tickMs);
  tick();
  return {
    async stop() {
      clearInterval(timer);
      await new Promise<void>((resolve) => {
        if (socket.destroyed) resolve();
        else socket.once('close', () => resolve()).end();
      });
    },
  };

  function tick(): void {
    const elapsedS = Math.floor((now() - startMs) / 1000);
    nextS = Math.max(nextS, elapsedS - behindMaxS);
    for (; nextS <= elapsedS; nextS += 1) waiting.push(...traffic.requestsOf(nextS));
    const due = waiting.filter(({ edge }) => edge.timeMs <= now());
    if (due.length === 0) return;
    waiting = waiting.filter(({ edge }) => edge.timeMs > now());
    for (const { app } of due) if (app !== undefined) appRecorder.record(app);
    socket.write(due.map(({ edge }) => `${caddyLine(edge)}\n`).join(''));
  }
}
