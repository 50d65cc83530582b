import { messageOf } from '../../shared/errors.js';
import type { Log } from '../../shared/log.js';
import { backoffMs, pause } from '../../shared/retry.js';
import type { AlertMessage } from './message.js';

/** Posts messages one after another, in the background. */
export interface Delivery {
  /** Never waits and never throws. */
  send(message: AlertMessage): void;
  /** Breaks off what is under way; what waits is not sent any more. */
  stop(): void;
}

/** Where messages go; the limits have defaults. */
export interface DeliveryOptions {
  /** May hold secrets: only its origin is ever logged. */
  readonly webhook: URL;
  readonly log: Log;
  /** How long one try may take, in milliseconds: 10 s. */
  readonly timeoutMs?: number;
  /** How often a message is tried: 20 times, which takes some four minutes. */
  readonly triesMax?: number;
  /** How many messages may wait: 100. What comes then is logged and not sent. */
  readonly waitingMax?: number;
  /** How long to wait after so many failures, in milliseconds. */
  readonly waitMs?: (failures: number) => number;
}

/** Starts a delivery. */
export function createDelivery({
  webhook,
  log,
  timeoutMs = 10_000,
  triesMax = 20,
  waitingMax = 100,
  waitMs = backoffMs,
}: DeliveryOptions): Delivery {
  const stopped = new AbortController();
  const waiting: AlertMessage[] = [];
  const { url, authorization } = withoutCredentials(webhook);
  let sending = false;

  return {
    send(message) {
      if (isStopped()) return;
      if (waiting.length >= waitingMax) {
        log.error(`An alert is not sent: ${waitingMax} others wait for ${url.origin}.`, { alert: message.text });
        return;
      }
      waiting.push(message);
      if (!sending) void sendAll();
    },
    stop: () => {
      stopped.abort();
    },
  };

  function isStopped(): boolean {
    return stopped.signal.aborted;
  }

  async function sendAll(): Promise<void> {
    sending = true;
    for (let message = waiting[0]; message !== undefined && !isStopped(); message = waiting[0]) {
      await deliver(message);
      waiting.shift();
    }
    sending = false;
  }

  async function deliver(message: AlertMessage): Promise<void> {
    for (let failures = 1; !isStopped(); failures += 1) {
      const problem = await post(message);
      if (problem === undefined || isStopped()) return;
      if (problem.final || failures >= triesMax) {
        log.error(
          `An alert could not be posted to ${url.origin} and is given up: ${problem.why}. See that ALERT_WEBHOOK is right.`,
          { tries: failures, alert: message.text },
        );
        return;
      }
      if (failures === 1) log.warn(`An alert could not be posted to ${url.origin} yet: ${problem.why}.`);
      await pause(waitMs(failures), stopped.signal);
    }
  }

  /** Resolves to what went wrong; a redirect is not followed, since it may lead the message elsewhere. */
  async function post(message: AlertMessage): Promise<{ why: string; final: boolean } | undefined> {
    const timeout = AbortSignal.timeout(timeoutMs);
    try {
      const response = await fetch(url, {
        method: 'POST',
        redirect: 'manual',
        body: JSON.stringify(message),
        signal: AbortSignal.any([stopped.signal, timeout]),
        headers: { 'content-type': 'application/json', ...(authorization !== undefined && { authorization }) },
      });
      void response.body?.cancel().catch(() => undefined); // it may have no end
      if (response.ok) return undefined;
      if (response.status >= 300 && response.status < 400)
        return { why: `it redirects with status ${response.status}, which is not followed`, final: true };
      return {
        why: `it answered with status ${response.status}`,
        final: response.status < 500 && response.status !== 408 && response.status !== 429,
      };
    } catch (error) {
      if (timeout.aborted) return { why: `no answer within ${timeoutMs / 1000} s`, final: false };
      // What fetch itself says may hold the URL; its cause is of the system.
      const { cause } = error as Error;
      return { why: cause === undefined ? 'the connection failed' : messageOf(cause), final: false };
    }
  }
}

/** `fetch` takes no user and password in a URL. */
function withoutCredentials(webhook: URL): { url: URL; authorization: string | undefined } {
  const url = new URL(webhook);
  const { username, password } = url;
  if (username === '' && password === '') return { url, authorization: undefined };
  url.username = '';
  url.password = '';
  return {
    url,
    authorization: `Basic ${Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString('base64')}`,
  };
}
