/**
 * A call of a function that asks for a secret which is not there is refused before anything runs; and what a function says
 * of its failure does not tell its secrets.
 */
import type { Masks } from '../../auth/masks.ts';
import { setSecretRemedy } from '../../domain/secret.ts';
import { GatewayError } from '../../errors.ts';
import type { Middleware } from '../invoke.ts';

export function secrets(options: {
  has(namespace: string, name: string): boolean;
  masks: Masks;
}): Middleware {
  const { has, masks } = options;
  return next =>
    function withSecrets(call, signal) {
      const { spec, namespace, functionId } = call.version;
      if (spec.secrets === undefined) return next(call, signal);
      const missing = spec.secrets.find(({ name }) => !has(namespace, name));
      if (missing !== undefined) {
        const detail = `the function needs the secret ${missing.name}, and the namespace ${namespace} has none of that name`;
        return Promise.reject(
          new GatewayError('SECRET_MISSING', detail, { remedy: setSecretRemedy(missing.name) }),
        );
      }
      return next(call, signal).then(
        reply => {
          if (reply.failure === undefined) return reply;
          return { ...reply, failure: masks.hideIn(functionId, reply.failure) };
        },
        error => {
          // What it says may be what the function said, as when it broke off its answer.
          if (error instanceof Error) error.message = masks.hide(functionId, error.message);
          throw error;
        },
      );
    };
}
