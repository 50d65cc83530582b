import { once } from 'node:events';
import { connect } from 'node:net';
import { messageOf } from '../shared/errors.js';
import type { Log } from '../shared/log.js';
import type { Recorder } from '../shared/record/recorder.js';
import { caddyLine } from './caddy-line.js';
import type { DemoRequest, Traffic } from './traffic.js';

/** Options for live traffic. */
export interface LiveOptions {
  readonly traffic: Traffic;
  /** Start time of the demo, in milliseconds since 1970. Requests are sent from this second on. */
  readonly startMs: number;
  /** The collector's TCP address. */
  readonly collector: { readonly host: string; readonly port: number };
  /** Records the app's measurements, as its middleware would. */
  readonly appRecorder: Pick<Recorder, 'record'>;
  readonly log: Log;
  /** Default: `Date.now`. */
  readonly now?: () => number;
}

/** Interval at which due requests are sent, in milliseconds. */
const tickMs = 100;
/** Maximum number of seconds to catch up on after the machine was suspended. Older requests are skipped. */
const behindMaxS = 600;

/**
 * Sends the log line of each request to the collector at the time of the request. Resolves when it is connected. `stop`
 * closes the connection.
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
  socket.resume(); // the collector sends nothing, but 'end' must be noticed
  socket.on('error', (error) => {
    log.error(`The connection to the collector failed, so the demo sends no more requests: ${messageOf(error)}`);
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
