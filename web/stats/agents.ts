/** Browser, system and bot names from user agents. Clients can send any user agent. */
import Bowser from 'bowser';
import { isbot } from 'isbot';

/** A parsed user agent. Fields that do not apply are `''`. */
export interface Agent {
  /** `people` use a browser; all other clients are `bots`. */
  readonly who: 'people' | 'bots';
  /** `Firefox`, `Chrome`, … or `other`; `''` for a bot. */
  readonly browser: string;
  /** The major version of the browser, such as `142`; `''` if unknown. */
  readonly version: string;
  /** `Windows`, `iOS`, … or `other`; `''` for a bot. */
  readonly system: string;
  /** `Googlebot`, `curl`, … or `other`; `''` for a browser. */
  readonly bot: string;
}

const other = 'other';

/** Maximum number of cached user agents. Beyond it the cache is cleared. */
const cachedMax = 5000;
const cache = new Map<string, Agent>();

/** Parses a user agent that is not empty. */
export function agentOf(userAgent: string): Agent {
  let agent = cache.get(userAgent);
  if (agent === undefined) {
    agent = parseAgent(userAgent);
    if (cache.size >= cachedMax) cache.clear();
    cache.set(userAgent, agent);
  }
  return agent;
}

/** Returns `Firefox 144, Windows`, the name of a bot, or the user agent itself if neither is recognized. */
export function agentName(userAgent: string): string {
  if (userAgent === '') return '';
  const { who, browser, version, system, bot } = agentOf(userAgent);
  const name = who === 'bots' ? bot : browser;
  if (name === other) return userAgent;
  return who === 'bots' ? name : `${name}${version === '' ? '' : ` ${version}`}, ${system}`;
}

function parseAgent(userAgent: string): Agent {
  if (isbot(userAgent)) return { who: 'bots', browser: '', version: '', system: '', bot: botName(userAgent) };
  const { browser, os } = Bowser.parse(userAgent);
  return {
    who: 'people',
    browser: browser.name || other,
    version: browser.version?.split('.')[0] ?? '',
    system: os.name || other,
    bot: '',
  };
}

/** The word that contains `bot`, `crawler` or `spider`, or else the first name. */
function botName(userAgent: string): string {
  const [, name] =
    /([\w-]*(?:bot|crawler|spider)[\w-]*)/i.exec(userAgent) ??
    /compatible; ([^/;)]+)/.exec(userAgent) ??
    /^([^\s/;(]+)/.exec(userAgent) ??
    [];
  return name === undefined || name === 'Mozilla' ? other : name;
}
