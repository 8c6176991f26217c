/** What the package `fnway` exports: the gateway for those who embed it, and the parts they may replace. */
export { type Config, parseConfig } from './config.ts';
export type { Driver, Exit, Instance, Started } from './driver/driver.ts';
export { createGateway, type Gateway, type Overrides } from './main.ts';
