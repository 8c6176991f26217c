/** The same function as functions-framework wants it; `functions-framework --target hello` serves it. */
import functions from '@google-cloud/functions-framework';

functions.http('hello', (request, response) => {
  response.type('text/plain').send(`Hello ${request.query.name ?? 'world'}\n`);
});
