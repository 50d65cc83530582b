/**
 * Requests as line protocol, and back. This is the hot path of the collector: lines are built as bytes, mostly from
 * cached parts.
 */
import { createMemo } from '../../memo.js';
import { splitNanoseconds, type RequestEvent } from '../../request-event.js';
import { escapeString, escapeTag, textOfTag, textOfUri, uriText } from './line-values.js';
import { TextBuffer } from './text-buffer.js';

/**
 * Returns a function that appends the line of a request, without its line break, for a recorder. It caches parts that
 * repeat.
 */
export function createRequestLines(recorder: string): (event: RequestEvent, text: TextBuffer) => void {
  const known: ({ readonly event: RequestEvent; readonly tags: Uint8Array } | undefined)[] = [];
  const [clientIp, userAgent, referrer, protocol, tls, error, upstream, contentType] = [
    'client_ip',
    'user_agent',
    'referrer',
    'protocol',
    'tls',
    'error',
    'upstream',
    'content_type',
  ].map(createTextField) as [TextField, TextField, TextField, TextField, TextField, TextField, TextField, TextField];
  let second = Number.NaN;
  let secondText = '';
  return (event, text) => {
    const { timeMs, durationMs, bytesRead, upstreamMs, requestId } = event;
    const at = slotOf(event) % tagsRemembered;
    let found = known[at];
    if (found === undefined || !isSameSeries(found.event, event))
      known[at] = found = { event, tags: Buffer.from(`${tagsOf(event, recorder)} uri="`) };
    if (Math.floor(timeMs / 1000) !== second) {
      second = Math.floor(timeMs / 1000);
      secondText = ` ${second}`;
    }
    text.addBytes(found.tags);
    text.add(escapeString(uriText(event.uri)));
    text.add('",size=');
    text.addInteger(event.size);
    text.add('i,bytes_read=');
    text.addInteger(bytesRead);
    text.add('i');
    if (durationMs !== null) {
      text.add(',duration_ms=');
      text.addNumber(durationMs);
    }
    text.addBytes(clientIp(event.clientIp));
    text.addBytes(userAgent(event.userAgent));
    text.addBytes(referrer(event.referrer));
    text.addBytes(protocol(event.protocol));
    text.addBytes(tls(event.tls));
    if (upstreamMs !== null) {
      text.add(',upstream_ms=');
      text.addNumber(upstreamMs);
    }
    if (requestId !== '') text.add(`,request_id="${escapeString(requestId)}"`);
    text.addBytes(error(event.error));
    if (event.errorId !== '') text.add(`,error_id="${escapeString(event.errorId)}"`);
    text.addBytes(upstream(event.upstream));
    if (event.retries !== null) text.add(`,retries=${event.retries}`);
    text.addBytes(contentType(event.contentType));
    text.add(secondText);
    text.addInteger((timeMs - second * 1000) * 1e6 + event.timeNs, 9);
  };
}

const tagsRemembered = 1024;

/** A cache index: equal for events of the same series, rarely for others. */
function slotOf({ status, method, host }: RequestEvent): number {
  return (
    (status * 31 +
      method.length * 7 +
      method.charCodeAt(0) +
      host.length * 961 +
      31 * host.charCodeAt(host.length >> 1) +
      127 * host.charCodeAt(0)) >>>
    0
  ); // NaN, from an empty text, becomes 0
}

/** A field with a leading comma, as bytes; empty for an empty text. */
type TextField = (text: string) => Uint8Array;

function createTextField(name: string): TextField {
  return createMemo((text) => Buffer.from(text === '' ? '' : `,${name}="${escapeString(text)}"`));
}

function isSameSeries(one: RequestEvent, other: RequestEvent): boolean {
  return (
    one.status === other.status &&
    one.host === other.host &&
    one.method === other.method &&
    one.source === other.source &&
    one.endpoint === other.endpoint
  );
}

/** Measurement and tags of a request. */
function tagsOf({ endpoint, host, method, source, status }: RequestEvent, recorder: string): string {
  let tags = 'request_metrics';
  if (endpoint !== '') tags += `,endpoint=${escapeTag(endpoint)}`;
  if (host !== '') tags += `,host=${escapeTag(host)}`;
  if (method !== '') tags += `,method=${escapeTag(method)}`;
  if (recorder !== '') tags += `,recorder=${escapeTag(recorder)}`;
  if (source !== '') tags += `,source=${escapeTag(source)}`;
  return `${tags},status_code=${status}`;
}

/** Line of a request, without its line break. */
export function requestLine(event: RequestEvent, recorder: string): string {
  const text = new TextBuffer();
  createRequestLines(recorder)(event, text);
  return text.bytes.toString();
}

/** Whether a line is from `requestLine`. */
export function isRequestLine(line: string): boolean {
  return line.startsWith('request_metrics,');
}

/** Parses the output of `requestLine`; returns `undefined` for any other text. */
export function parseRequestLine(line: string): RequestEvent | undefined {
  const parts = isRequestLine(line) ? requestLineShape.exec(line) : null;
  if (parts === null) return undefined;
  const tags = new Map(
    [...parts[1]!.matchAll(tagShape)].map(([, name, value]) => [
      name!,
      textOfTag(value!.replaceAll(/\\([,= ])/g, '$1')),
    ]),
  );
  const fields = new Map(
    [...parts[2]!.matchAll(fieldShape)].map(([, name, text, value]) => [
      name!,
      text === undefined ? value! : text.replaceAll(/\\(["\\])/g, '$1'),
    ]),
  );
  const number = (name: string): number | null => {
    const value = fields.get(name);
    return value === undefined ? null : Number(value.replace(/i$/, ''));
  };
  const uri = fields.get('uri');
  const status = Number(tags.get('status_code') ?? Number.NaN);
  if (uri === undefined || !Number.isInteger(status)) return undefined;
  return {
    source: tags.get('source') ?? '',
    ...splitNanoseconds(BigInt(parts[3]!)),
    host: tags.get('host') ?? '',
    method: tags.get('method') ?? '',
    status,
    durationMs: number('duration_ms'),
    size: number('size') ?? 0,
    bytesRead: number('bytes_read') ?? 0,
    uri: textOfUri(uri),
    endpoint: tags.get('endpoint') ?? '',
    clientIp: fields.get('client_ip') ?? '',
    userAgent: fields.get('user_agent') ?? '',
    referrer: fields.get('referrer') ?? '',
    protocol: fields.get('protocol') ?? '',
    tls: fields.get('tls') ?? '',
    upstreamMs: number('upstream_ms'),
    requestId: fields.get('request_id') ?? '',
    error: fields.get('error') ?? '',
    errorId: fields.get('error_id') ?? '',
    upstream: fields.get('upstream') ?? '',
    retries: number('retries'),
    contentType: fields.get('content_type') ?? '',
  };
}

/** Measurement and tags, fields, and time. Spaces are escaped in tags and quoted in fields. */
const requestLineShape =
  /^request_metrics((?:,[a-z_]+=(?:\\[,= ]|[^,= ])+)+) ((?:[^"]|"(?:\\.|[^"\\])*")+) (\d{1,30})$/s;

const tagShape = /,([a-z_]+)=((?:\\[,= ]|[^,= ])+)/g;
const fieldShape = /([a-z_]+)=(?:"((?:\\.|[^"\\])*)"|([-\d.e+]+i?))/gs;
