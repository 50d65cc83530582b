/**
 * Access lines of many sites, as a hosting server writes them: Zipf over hosts, few paths with most requests, seven
 * methods, eleven statuses, random clients.
 */
import { createRandom, type Weighted } from '../demo/random.js';
import { createZipf } from '../test/zipf.js';

const methods: readonly Weighted<string>[] = [
  [80, 'GET'],
  [10, 'POST'],
  [5, 'HEAD'],
  [2, 'OPTIONS'],
  [1, 'PUT'],
  [1, 'DELETE'],
  [1, 'PROPFIND'],
];
const statuses: readonly Weighted<number>[] = [
  [70, 200],
  [8, 304],
  [4, 301],
  [3, 302],
  [8, 404],
  [2, 403],
  [1, 500],
  [1, 502],
  [1, 401],
  [1, 206],
  [1, 204],
];
const pathsMax = 5000;
/** Of a Pareto distribution: two in five requests have the same path. */
const pathShape = 0.8;
const agentsMax = 40;

/** The host and the path that come most often. */
export const busiest = { host: 'site1.example.com', path: '/p/1' };

/**
 * Makes lines, each of the time that it is given, in milliseconds since 1970. The same number of hosts gives the same
 * lines.
 */
export function createManyHosts(hosts: number): (timeMs: number) => string {
  const random = createRandom(7);
  const host = createZipf({ exponent: 1, ranksMax: hosts, random: () => random.next() });
  const path = (): number => Math.floor((1 - random.next()) ** (-1 / pathShape)) % pathsMax;
  const whole = (from: number, end: number): number => from + Math.floor(random.next() * (end - from));
  return (timeMs) => {
    const name = `site${host()}.example.com`;
    const client = `198.51.${whole(0, 256)}.${whole(0, 256)}`;
    const agent = `Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/${whole(100, 100 + agentsMax)}.0.0.0 Safari/537.36`;
    return `{"level":"info","ts":${(timeMs / 1000).toFixed(6)},"logger":"http.log.access.log0","msg":"handled request","request":{"remote_ip":"${client}","remote_port":"${whole(1024, 65_535)}","client_ip":"${client}","proto":"HTTP/2.0","method":"${random.pick(methods)}","host":"${name}","uri":"/p/${path()}?x=${whole(0, 97)}","headers":{"User-Agent":["${agent}"],"Accept":["*/*"]},"tls":{"resumed":false,"version":772,"cipher_suite":4865,"proto":"h2","server_name":"${name}"}},"bytes_read":0,"user_id":"","duration":${random.around(0.007, 1.2).toFixed(9)},"size":${whole(200, 50_000)},"status":${random.pick(statuses)},"resp_headers":{"Server":["Caddy"],"Content-Type":["text/html; charset=utf-8"]}}\n`;
  };
}

/** `count` lines over the last `hours`, in parts of some thousand lines. */
export function* manyHostsLog({
  count,
  hours,
  hosts,
}: {
  count: number;
  hours: number;
  hosts: number;
}): Generator<string> {
  const line = createManyHosts(hosts);
  const lengthMs = hours * 3_600_000;
  const fromMs = Date.now() - lengthMs;
  let text = '';
  for (let at = 0; at < count; at += 1) {
    text += line(fromMs + (at * lengthMs) / count);
    if (at % 2000 === 1999 || at === count - 1) {
      yield text;
      text = '';
    }
  }
}
