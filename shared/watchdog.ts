import { execFile } from 'node:child_process';
import { messageOf } from './errors.js';
import type { Log } from './log.js';

/** Number of heartbeats per watchdog timeout, so that some may be late or fail. */
const beatsPerTimeout = 5;

/**
 * Sends heartbeats to systemd's watchdog for as long as the event loop of this process runs, if the unit sets
 * `WatchdogSec=` (sd_watchdog_enabled(3)). Does nothing if there is no watchdog, or if it watches another process.
 *
 * Node has no unix datagram sockets, so each heartbeat runs `systemd-notify`, which is part of systemd. It is not the
 * main process of the unit, so the unit needs `NotifyAccess=all`.
 */
export function startWatchdog(
  environment: NodeJS.ProcessEnv,
  { log, pid = process.pid }: { log: Log; pid?: number },
): void {
  const { NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID = String(pid) } = environment;
  const timeoutMs = Number(WATCHDOG_USEC) / 1000;
  if (!NOTIFY_SOCKET || !(timeoutMs > 0) || WATCHDOG_PID !== String(pid)) return;
  const beatMs = timeoutMs / beatsPerTimeout;
  let isBeating = false;
  let failedBefore = false;
  const beat = (): void => {
    if (isBeating) return;
    isBeating = true;
    // systemd-notify waits until systemd has read the message: systemd cannot attribute a message of an exited process
    // to its unit.
    execFile(
      'systemd-notify',
      ['WATCHDOG=1'],
      { env: environment, timeout: timeoutMs, killSignal: 'SIGKILL' },
      (error) => {
        isBeating = false;
        if (error !== null && !failedBefore)
          log.error(
            `Cannot tell systemd's watchdog that this program runs: ${messageOf(error)}. systemd kills it after WatchdogSec=. Put systemd-notify on its PATH and set NotifyAccess=all in the unit, or set WatchdogSec=0.`,
            { timeoutMs },
          );
        failedBefore = error !== null;
      },
    );
  };
  beat();
  setInterval(beat, beatMs).unref();
}
