import { once } from 'node:events';
import { request } from 'node:http';

/** How long a page takes, with its body, in milliseconds. */
export async function pageMs(url: string): Promise<number> {
  const startMs = performance.now();
  const sent = request(url, { headers: { 'X-Poll': '1', 'Accept-Encoding': 'gzip' } }).end();
  const [response] = (await once(sent, 'response')) as [NodeJS.ReadableStream & { statusCode: number }];
  response.resume();
  await once(response, 'end');
  if (response.statusCode !== 200) throw new Error(`${url} answered ${response.statusCode}: 200 is wanted.`);
  return performance.now() - startMs;
}
