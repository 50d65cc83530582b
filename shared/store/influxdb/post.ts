import { request as requestHttp, type Agent as HttpAgent } from 'node:http';
import { request as requestHttps, type Agent as HttpsAgent } from 'node:https';
import { HttpError } from '@influxdata/influxdb-client';
import { deadline } from './deadline.js';

/** Destination of lines. */
export interface PostOptions {
  /** URL of the write API, with its query. */
  readonly url: string;
  readonly token: string;
  readonly agent: HttpAgent | HttpsAgent;
  /** Timeout of a request, in milliseconds. */
  readonly timeoutMs: number;
  /** Aborts pending requests. */
  readonly signal: AbortSignal;
}

/** Maximum number of response bytes to read: the reason of an error is at the start. */
const answerBytesMax = 16_384;

/**
 * Posts compressed line protocol; resolves when InfluxDB has written all of it (204). Throws the client's `HttpError`
 * for any other response, and the system's error if there was none.
 *
 * The client's own write API only accepts text, and would compress it again on each retry.
 */
export function postLines(gzip: Buffer, { url, token, agent, timeoutMs, signal }: PostOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    const headers = {
      authorization: `Token ${token}`,
      'content-type': 'text/plain; charset=utf-8',
      'content-encoding': 'gzip',
      'content-length': gzip.length,
    };
    const request = (url.startsWith('https:') ? requestHttps : requestHttp)(url, {
      method: 'POST',
      agent,
      headers,
      signal: deadline(timeoutMs, signal),
    });
    // A proxy that rejects a body may respond and hang up before it has read it: the response counts, not the broken
    // pipe.
    let answered = false;
    request.on('error', (error) => {
      if (!answered) reject(error);
    });
    request.on('response', (response) => {
      const { statusCode = 0, statusMessage, headers: answerHeaders } = response;
      answered = true;
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        if (bytes < answerBytesMax) chunks.push(chunk);
        bytes += chunk.length;
        if (bytes > 64 * answerBytesMax) request.destroy(); // an endless response
      });
      const settle = (): void => {
        if (statusCode === 204) {
          resolve();
          return;
        }
        const body = Buffer.concat(chunks).subarray(0, answerBytesMax).toString('utf8');
        reject(
          new HttpError(
            statusCode,
            statusMessage,
            body,
            answerHeaders['retry-after'],
            answerHeaders['content-type'],
            undefined,
            answerHeaders,
          ),
        );
      };
      response.once('end', settle);
      response.once('error', (error) => {
        if (statusCode < 400) reject(error);
        else settle();
      }); // an incomplete error response is still an error
    });
    request.end(gzip);
  });
}
