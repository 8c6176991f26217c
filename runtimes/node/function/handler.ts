export default async function (request: Request): Promise<Response> {
  const { searchParams } = new URL(request.url);
  return new Response(`Hello ${searchParams.get('name') ?? 'world'}\n`);
}
