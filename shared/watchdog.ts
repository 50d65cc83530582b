import { execFile } from 'node:child_process';
import { messageOf } from './errors.js';
import type { Log } from './log.js';

/** Beats within the time that systemd waits for one: so many may be late or fail. */
const beatsPerTimeout = 5;

/**
 * Tells systemd's watchdog that the event loop of this process turns, where the unit has `WatchdogSec=` (sd_watchdog_enabled(3)). Does nothing where
 * there is no watchdog, or where it waits for another process.
 *
 * Node has no unix datagram sockets, so each beat runs `systemd-notify`, which is part of systemd. It is another process than systemd's main one:
 * the unit needs `NotifyAccess=all`.
 */
export function startWatchdog(environment: NodeJS.ProcessEnv, { log, pid = process.pid }: { log: Log; pid?: number }): void {
  const { NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID = String(pid) } = environment;
  const timeoutMs = Number(WATCHDOG_USEC) / 1000;
  if (!NOTIFY_SOCKET || !(timeoutMs > 0) || WATCHDOG_PID !== String(pid)) return;
  const beatMs = timeoutMs / beatsPerTimeout;
  let isBeating = false;
  let failedBefore = false;
  const beat = (): void => {
    if (isBeating) return;
    isBeating = true;
    // It waits until systemd has read the message: once its process is gone, systemd could not tell from which unit it came.
    execFile('systemd-notify', ['WATCHDOG=1'], { env: environment, timeout: timeoutMs, killSignal: 'SIGKILL' }, (error) => {
      isBeating = false;
      if (error !== null && !failedBefore) log.error(`Cannot tell systemd's watchdog that this program runs: ${messageOf(error)}. systemd ends it after WatchdogSec=. Put systemd-notify on its PATH and NotifyAccess=all into the unit, or set WatchdogSec=0.`, { timeoutMs });
      failedBefore = error !== null;
    });
  };
  beat();
  setInterval(beat, beatMs).unref();
}
