/** `setup` as its user runs it, on the real InfluxDB. */
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { influxdOfThisFile, startFreshInfluxd, testWithInfluxd } from './influxd.js';
import { freePort } from './ports.js';
import { folderOf, runProgram, startProgram } from './program.js';

const influxd = influxdOfThisFile();

interface Outcome {
  readonly status: number | string;
  readonly stdout: string;
  readonly stderr: string;
}

async function setUp(settings: Readonly<Record<string, string>>, ...args: string[]): Promise<Outcome> {
  const program = await runProgram(['setup', ...args], settings);
  return { status: await program.ended, stdout: program.stdout(), stderr: program.stderr() };
}

const tokenIn = async (folder: string, part: string): Promise<string> =>
  (await readFile(join(folder, part, 'token'), 'utf8')).trim();

if (process.env['INFLUXDB_URL'] === undefined) {
  testWithInfluxd(
    'setup of a fresh InfluxDB makes all that the collector and the web app need, and a second one changes nothing',
    async (t) => {
      const url = await startFreshInfluxd(t);
      const tokens = await folderOf(t);
      const settings = {
        INFLUXDB_URL: url,
        INFLUXDB_ORG: 'home',
        INFLUXDB_BUCKET: 'requests',
        RETENTION_ROLLUPS: '30d',
      };
      const first = await setUp(settings, '--tokens', tokens);
      t.is(first.status, 0, first.stderr);
      t.regex(first.stdout, /It was fresh[^]*retention of 30 days/);
      const files = ['operator/token', 'operator/password', 'collector/token', 'web/token'];
      for (const file of files) {
        t.is((await stat(join(tokens, file))).mode & 0o777, 0o600, file);
        t.false(first.stdout.includes((await readFile(join(tokens, file), 'utf8')).trim()), 'no secret is printed');
      }

      const second = await setUp(settings, '--tokens', tokens);
      t.is(second.status, 0, second.stderr);
      t.regex(second.stdout, /Nothing was changed\.\n$/);

      const [http, web, tcp] = [await freePort(), await freePort(), await freePort()];
      const store = { ...settings, STORE: 'influxdb' };
      const programs = await Promise.all([
        startProgram(
          ['collector'],
          {
            ...store,
            INFLUXDB_TOKEN_FILE: join(tokens, 'collector/token'),
            COLLECTOR_LISTEN: `tcp://127.0.0.1:${tcp}`,
            COLLECTOR_HTTP: `127.0.0.1:${http}`,
          },
          [`http://127.0.0.1:${http}/ready`],
        ),
        startProgram(
          ['web'],
          { ...store, INFLUXDB_TOKEN_FILE: join(tokens, 'web/token'), WEB_LISTEN: `127.0.0.1:${web}` },
          [`http://127.0.0.1:${web}/ready`],
        ),
      ]);
      for (const program of programs) t.is(await program.stop(), 0);

      // What was lost or is wrong is mended; what works stays.
      const webToken = await tokenIn(tokens, 'web');
      await writeFile(join(tokens, 'collector/token'), 'wrong\n');
      const third = await setUp(settings, '--tokens', tokens);
      t.regex(third.stdout, /collector's token .*: found/);
      t.not(await tokenIn(tokens, 'collector'), 'wrong');
      t.is(await tokenIn(tokens, 'web'), webToken);

      // New tokens are made when they are asked for, and the old ones are worth nothing.
      const collectorToken = await tokenIn(tokens, 'collector');
      const renewed = await setUp(settings, '--tokens', tokens, '--new-tokens');
      t.is(renewed.status, 0, renewed.stderr);
      t.regex(renewed.stdout, /collector's token .*: made[^]*web app's token .*: made/);
      t.not(await tokenIn(tokens, 'collector'), collectorToken);
      const write = (token: string): Promise<number> =>
        fetch(`${url}/api/v2/write?org=home&bucket=requests`, {
          method: 'POST',
          headers: { authorization: `Token ${token}` },
          body: 'tried value=1',
        }).then(({ status }) => status);
      t.deepEqual(
        await Promise.all(
          [collectorToken, webToken, await tokenIn(tokens, 'collector'), await tokenIn(tokens, 'web')].map(write),
        ),
        [401, 401, 204, 204],
      );
      t.regex((await setUp(settings, '--tokens', tokens)).stdout, /Nothing was changed\.\n$/);
    },
  );
}

testWithInfluxd(
  'setup of an InfluxDB in use needs a token that may do everything, and never shortens what a bucket keeps',
  async (t) => {
    const { url, org, token, bucket, createToken } = await influxd();
    const settings = { INFLUXDB_URL: url, INFLUXDB_ORG: org, INFLUXDB_BUCKET: bucket, INFLUXDB_TOKEN: token };
    const first = await setUp(settings);
    t.regex(first.stdout, /exists, with a retention of unlimited length, which is longer than RETENTION_ROLLUPS/);
    const [collector, web] = [/collector's token .*: (\S+)$/m, /web app's token .*: (\S+)$/m].map(
      (shape) => shape.exec(first.stdout)![1]!,
    ) as [string, string];
    const query = (as: string): Promise<number> =>
      fetch(`${url}/api/v2/query?org=${org}`, {
        method: 'POST',
        headers: { authorization: `Token ${as}`, 'content-type': 'application/vnd.flux' },
        body: `from(bucket: "${bucket}") |> range(start: -1m)`,
      }).then(({ status }) => status);
    t.is(await query(web), 200);
    t.not(await query(collector), 200, 'it may write alone');
    t.regex((await setUp(settings)).stdout, /Nothing was changed/);

    const made = await setUp({ ...settings, INFLUXDB_BUCKET: `${bucket}-setup`, RETENTION_ROLLUPS: '2d' });
    t.regex(made.stdout, /created, with a retention of 2 days/);
    t.regex(
      (await setUp({ ...settings, INFLUXDB_BUCKET: `${bucket}-setup`, RETENTION_ROLLUPS: '3d' })).stdout,
      /retention extended from 2 days to 3 days/,
    );
    t.regex(
      (await setUp({ ...settings, INFLUXDB_BUCKET: `${bucket}-setup`, RETENTION_ROLLUPS: '1d' })).stdout,
      /a retention of 3 days, which is longer/,
    );

    const refusals: [Readonly<Record<string, string>>, number, RegExp][] = [
      [{ INFLUXDB_TOKEN: '' }, 2, /has been set up already.*set INFLUXDB_TOKEN/],
      [
        { INFLUXDB_TOKEN: 'hunter2' },
        1,
        /401\. INFLUXDB_TOKEN has to be a token that may do everything.*wrong, or no longer valid/,
      ],
      [
        { INFLUXDB_TOKEN: await createToken(bucket, ['read', 'write']) },
        1,
        /organisation .* that the token can read|not allowed to do this/,
      ],
      [{ INFLUXDB_ORG: 'elsewhere' }, 1, /Cannot find the organisation "elsewhere"/],
      [{ INFLUXDB_URL: '' }, 2, /INFLUXDB_URL is not set/],
      [{ INFLUXDB_URL: 'http://me:hunter2@127.0.0.1:8086' }, 2, /INFLUXDB_URL has a user/],
    ];
    for (const [wrong, status, message] of refusals) {
      const outcome = await setUp({ ...settings, ...wrong });
      t.is(outcome.status, status);
      t.regex(outcome.stderr, message);
      t.notRegex(outcome.stderr, /hunter2/);
    }
  },
);
