import { storeSettings } from '../../shared/settings/store-settings.js';
import { collectorSettings } from '../config.js';

const { COLLECTOR_HTTP, COLLECTOR_LINE_BYTES_MAX, COLLECTOR_TIME_ZONE, COLLECTOR_DURATION_FORMAT, COLLECTOR_ID } =
  collectorSettings;

/** The settings of an import. */
export const importSettings = {
  ...storeSettings,
  COLLECTOR_HTTP,
  COLLECTOR_LINE_BYTES_MAX,
  COLLECTOR_TIME_ZONE,
  COLLECTOR_DURATION_FORMAT,
  COLLECTOR_ID,
};
