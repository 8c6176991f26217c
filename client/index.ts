/**
 * `fnway/client`: the wire types, and a fetch client for the control plane. No dependencies; runs
 * in browsers.
 */
export type * from './api.ts';
export * from './client.ts';
export * from './errors.ts';
