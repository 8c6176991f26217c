/** Web standard: greets whoever the query names, as in `/function/hello?name=Ada`. */
export default function (request: Request): Response {
  const { searchParams } = new URL(request.url);
  return new Response(`Hello ${searchParams.get('name') ?? 'world'}\n`);
}
