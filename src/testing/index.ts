/** What tests of the whole gateway are written with. */

export * from './go.ts';
export * from './problem.ts';
export * from './raw-connection.ts';
export * from './test-gateway.ts';
export * from './wait-for.ts';
