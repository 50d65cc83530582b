import { eventFieldsLengthMax, eventTextLengthMax, type CaddyEvent } from '../caddy-event.js';
import { createMemo } from '../memo.js';
import type { RequestEvent } from '../request-event.js';
import {
  boundClientIp,
  boundDuration,
  boundMethod,
  clampBytes,
  cleanName,
  nameLengthMax,
  otherName,
  truncateText,
  uriLengthMax,
} from './bounds.js';
import { HostLimit } from './host-limit.js';
import type { RecordingPolicy } from './recording-policy.js';

/** A request that may still change. */
export type WritableRequest = { -readonly [Key in keyof RequestEvent]: RequestEvent[Key] };

/** Maximum length of free text other than the URI, in UTF-16 code units. */
const textLengthMax = 1024;

/** Maximum number of remembered addresses. */
const addressesMax = 10_000;

/** Bounds whatever clients and log lines choose, and truncates addresses, before anything is stored. */
export class RequestSanitizer {
  readonly #hostLimit: HostLimit;
  #hostsOverLimit = 0;
  // Separate memos: consecutive requests often have the same value.
  readonly #source = createMemo(cleanName);
  readonly #host = createMemo(cleanName);
  readonly #endpoint = createMemo(cleanName);
  readonly #userAgent = createTextMemo();
  readonly #referrer = createTextMemo();
  readonly #protocol = createTextMemo();
  readonly #tls = createTextMemo();
  readonly #error = createTextMemo();
  readonly #upstream = createMemo(cleanName);
  readonly #contentType = createMemo(cleanName);
  readonly #client: (address: string) => string;
  readonly #country: ((address: string) => string) | undefined;

  constructor({ hostsMax, configuredHosts, clientIp, countryOf }: RecordingPolicy) {
    this.#hostLimit = new HostLimit({ hostsMax, configured: configuredHosts });
    this.#client = createMemo((address) => boundClientIp(address, clientIp), { entriesMax: addressesMax });
    this.#country = countryOf && createMemo(countryOf, { entriesMax: addressesMax });
  }

  /** Number of requests whose host became `_other` because of the host limit. */
  get hostsOverLimit(): number {
    return this.#hostsOverLimit;
  }

  /** Returns a bounded copy. */
  sanitize(event: RequestEvent): WritableRequest {
    return {
      source: this.#source(event.source),
      timeMs: event.timeMs,
      timeNs: event.timeNs,
      host: this.#admitHost(event),
      method: boundMethod(event.method),
      status: event.status,
      durationMs: boundDuration(event.durationMs),
      size: clampBytes(event.size),
      bytesRead: clampBytes(event.bytesRead),
      uri: truncateText(event.uri, uriLengthMax),
      endpoint: this.#endpoint(event.endpoint),
      clientIp: this.#client(event.clientIp),
      userAgent: this.#userAgent(event.userAgent),
      referrer: this.#referrer(event.referrer),
      protocol: this.#protocol(event.protocol),
      tls: this.#tls(event.tls),
      upstreamMs: boundDuration(event.upstreamMs),
      requestId: truncateText(event.requestId, nameLengthMax),
      error: this.#error(event.error),
      errorId: truncateText(event.errorId, nameLengthMax),
      upstream: this.#upstream(event.upstream),
      retries: event.retries === null ? null : clampBytes(event.retries),
      contentType: this.#contentType(event.contentType),
    };
  }

  /** Country of a request's full address; `undefined` if countries are not looked up. */
  countryOf(event: RequestEvent): string | undefined {
    return this.#country?.(event.clientIp);
  }

  #admitHost(event: RequestEvent): string {
    const clean = this.#host(event.host);
    const host = this.#hostLimit.admit(clean, event);
    if (host === otherName && clean !== otherName) this.#hostsOverLimit += 1;
    return host;
  }
}

/** Returns a copy of an event with texts that every store accepts. */
export function sanitizeEvent(event: CaddyEvent): CaddyEvent {
  const short = (text: string): string => truncateText(text, eventTextLengthMax);
  return {
    ...event,
    logger: cleanName(event.logger),
    message: short(event.message),
    error: short(event.error),
    reason: short(event.reason),
    host: cleanName(event.host),
    status: Number.isInteger(event.status) && event.status >= 0 && event.status <= 999 ? event.status : 0,
    method: event.method === '' ? '' : boundMethod(event.method),
    uri: short(event.uri),
    errorId: cleanName(event.errorId),
    upstream: cleanName(event.upstream),
    fields: truncateText(event.fields, eventFieldsLengthMax),
  };
}

function createTextMemo(): (text: string) => string {
  return createMemo((text) => truncateText(text, textLengthMax));
}
