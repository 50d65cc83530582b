import { messageOf } from '../../shared/errors.js';
import type { Log } from '../../shared/log.js';
import { backoffMs, pause } from '../../shared/retry.js';
import { isServerError, statusClassOf } from '../../shared/status.js';
import type { AlertMessage } from './message.js';

/** Options of `Delivery`. */
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

/** Posts messages in order, in the background. */
export class Delivery {
  readonly #log: Log;
  readonly #timeoutMs: number;
  readonly #triesMax: number;
  readonly #waitingMax: number;
  readonly #waitMs: (failures: number) => number;
  readonly #url: URL;
  readonly #authorization: string | undefined;
  readonly #stopped = new AbortController();
  readonly #waiting: AlertMessage[] = [];
  #isSending = false;

  constructor({
    webhook,
    log,
    timeoutMs = 10_000,
    triesMax = 20,
    waitingMax = 100,
    waitMs = backoffMs,
  }: DeliveryOptions) {
    this.#log = log;
    this.#timeoutMs = timeoutMs;
    this.#triesMax = triesMax;
    this.#waitingMax = waitingMax;
    this.#waitMs = waitMs;
    const { url, authorization } = withoutCredentials(webhook);
    this.#url = url;
    this.#authorization = authorization;
  }

  /** Queues a message. Never blocks and never throws. */
  send(message: AlertMessage): void {
    if (this.#isStopped()) return;
    if (this.#waiting.length >= this.#waitingMax) {
      this.#log.error(
        `Cannot queue an alert: ${this.#waitingMax} alerts are already waiting for ${this.#url.origin}. See that it is reachable.`,
        { alert: message.text },
      );
      return;
    }
    this.#waiting.push(message);
    if (!this.#isSending) void this.#sendAll();
  }

  /** Aborts the current request and discards queued messages. */
  stop(): void {
    this.#stopped.abort();
  }

  #isStopped(): boolean {
    return this.#stopped.signal.aborted;
  }

  async #sendAll(): Promise<void> {
    this.#isSending = true;
    for (let message = this.#waiting[0]; message !== undefined && !this.#isStopped(); message = this.#waiting[0]) {
      await this.#deliver(message);
      this.#waiting.shift();
    }
    this.#isSending = false;
  }

  async #deliver(message: AlertMessage): Promise<void> {
    for (let failures = 1; !this.#isStopped(); failures += 1) {
      const problem = await this.#post(message);
      if (problem === undefined || this.#isStopped()) return;
      if (problem.final || failures >= this.#triesMax) {
        this.#log.error(
          `Cannot post an alert to ${this.#url.origin}, giving up: ${problem.why}. Check ALERT_WEBHOOK.`,
          {
            tries: failures,
            alert: message.text,
          },
        );
        return;
      }
      if (failures === 1) this.#log.warn(`Cannot post an alert to ${this.#url.origin}, retrying: ${problem.why}.`);
      await pause(this.#waitMs(failures), this.#stopped.signal);
    }
  }

  /** Resolves to the error, if any. Does not follow redirects, which could send the message elsewhere. */
  async #post(message: AlertMessage): Promise<{ why: string; final: boolean } | undefined> {
    const timeout = AbortSignal.timeout(this.#timeoutMs);
    const authorization = this.#authorization;
    try {
      const response = await fetch(this.#url, {
        method: 'POST',
        redirect: 'manual',
        body: JSON.stringify(message),
        signal: AbortSignal.any([this.#stopped.signal, timeout]),
        headers: { 'content-type': 'application/json', ...(authorization !== undefined && { authorization }) },
      });
      void response.body?.cancel().catch(() => undefined); // the body may be endless
      if (response.ok) return undefined;
      if (statusClassOf(response.status) === 3)
        return { why: `the receiver redirects (status ${response.status}), which is not supported`, final: true };
      return {
        why: `the receiver responded with status ${response.status}`,
        final: !isServerError(response.status) && response.status !== 408 && response.status !== 429,
      };
    } catch (error) {
      if (timeout.aborted) return { why: `no response within ${this.#timeoutMs / 1000} s`, final: false };
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
