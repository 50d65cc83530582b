import { messageOf } from '../../shared/errors.js';
import type { Log } from '../../shared/log.js';
import { backoffMs, pause } from '../../shared/retry.js';
import type { AlertMessage } from './message.js';

/** Posts messages in order, in the background. */
export interface Delivery {
  /** Queues a message. Never blocks and never throws. */
  send(message: AlertMessage): void;
  /** Aborts the current request and discards queued messages. */
  stop(): void;
}

/** Options of `createDelivery`. */
export interface DeliveryOptions {
  /** May contain secrets: only its origin is logged. */
  readonly webhook: URL;
  readonly log: Log;
  /** Timeout of an attempt, in milliseconds. Default: 10,000. */
  readonly timeoutMs?: number;
  /** Maximum number of attempts per message. Default: 20, which takes about four minutes. */
  readonly triesMax?: number;
  /** Maximum number of queued messages. Beyond it, messages are logged and not sent. Default: 100. */
  readonly waitingMax?: number;
  /** Returns the delay before the next attempt, in milliseconds. */
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
        log.error(
          `Cannot queue an alert: ${waitingMax} alerts are already waiting for ${url.origin}. See that it is reachable.`,
          { alert: message.text },
        );
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
        log.error(`Cannot post an alert to ${url.origin}, giving up: ${problem.why}. Check ALERT_WEBHOOK.`, {
          tries: failures,
          alert: message.text,
        });
        return;
      }
      if (failures === 1) log.warn(`Cannot post an alert to ${url.origin}, retrying: ${problem.why}.`);
      await pause(waitMs(failures), stopped.signal);
    }
  }

  /** Resolves to the error, if any. Does not follow redirects, which could send the message elsewhere. */
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
      void response.body?.cancel().catch(() => undefined); // the body may be endless
      if (response.ok) return undefined;
      if (response.status >= 300 && response.status < 400)
        return { why: `the receiver redirects (status ${response.status}), which is not supported`, final: true };
      return {
        why: `the receiver responded with status ${response.status}`,
        final: response.status < 500 && response.status !== 408 && response.status !== 429,
      };
    } catch (error) {
      if (timeout.aborted) return { why: `no response within ${timeoutMs / 1000} s`, final: false };
      // The message of `fetch` may contain the URL; its cause is a system error.
      const { cause } = error as Error;
      return { why: cause === undefined ? 'the connection failed' : messageOf(cause), final: false };
    }
  }
}

/** Moves user and password to a header, because `fetch` rejects URLs with credentials. */
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
