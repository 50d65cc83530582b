/** telegraf from the PATH: lines over TCP into InfluxDB, with the tags and fields that the collector writes. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Influxd } from '../test/influxd-server.js';
import { temporaryFolder } from '../test/program.js';
import { openConnection } from '../test/sample.js';
import { until } from '../test/until.js';

/** A telegraf that listens. */
export interface Telegraf {
  readonly pid: number;
  stop(): Promise<void>;
}

/** Starts telegraf on a port of this machine; resolves when it listens. */
export async function startTelegraf(influxd: Influxd, bucket: string, port: number): Promise<Telegraf> {
  const path = join(await temporaryFolder(), 'telegraf.conf');
  await writeFile(path, telegrafConfig({ ...influxd, port, bucket }));
  const telegraf = spawn('telegraf', ['--config', path, '--quiet'], { stdio: ['ignore', 'inherit', 'inherit'] });
  const ended = once(telegraf, 'exit');
  await until('telegraf listens', () =>
    openConnection(port).then(
      (socket) => {
        socket.destroy();
        return true;
      },
      () => false,
    ),
  );
  return {
    pid: telegraf.pid!,
    async stop() {
      telegraf.kill();
      await ended;
    },
  };
}

/** The same tags and fields as the collector writes. */
function telegrafConfig({
  port,
  bucket,
  url,
  org,
  token,
}: {
  port: number;
  bucket: string;
  url: string;
  org: string;
  token: string;
}): string {
  const tags = [
    ['request.host', 'host'],
    ['request.method', 'method'],
    ['status', 'status_code'],
    ['logger', 'source'],
  ] as const;
  const fields = [
    ['request.uri', 'uri', 'string'],
    ['size', 'size', 'int'],
    ['bytes_read', 'bytes_read', 'int'],
    ['duration', 'duration_s', 'float'],
    ['request.client_ip', 'client_ip', 'string'],
    ['request.headers.User-Agent.0', 'user_agent', 'string'],
    ['request.headers.Referer.0', 'referrer', 'string'],
    ['request.proto', 'protocol', 'string'],
  ] as const;
  return `[agent]
  interval = "10s"
  flush_interval = "1s"
  metric_batch_size = 5000
  metric_buffer_limit = 2000000
  omit_hostname = true
[[inputs.socket_listener]]
  service_address = "tcp://127.0.0.1:${port}"
  data_format = "json_v2"
  [[inputs.socket_listener.json_v2]]
    measurement_name = "request_metrics"
    timestamp_path = "ts"
    timestamp_format = "unix"
${tags.map(([from, to]) => `    [[inputs.socket_listener.json_v2.tag]]\n      path = "${from}"\n      rename = "${to}"\n`).join('')}${fields.map(([from, to, type]) => `    [[inputs.socket_listener.json_v2.field]]\n      path = "${from}"\n      rename = "${to}"\n      type = "${type}"\n      optional = true\n`).join('')}
[[outputs.influxdb_v2]]
  urls = ["${url}"]
  token = "${token}"
  organization = "${org}"
  bucket = "${bucket}"
`;
}
