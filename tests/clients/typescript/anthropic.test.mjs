// The Anthropic SDK for TypeScript at a fleet with a scripted model: what it makes of what comes.

import assert from 'node:assert/strict';
import { test as always } from 'node:test';

import Anthropic from '@anthropic-ai/sdk';
import { betaZodTool } from '@anthropic-ai/sdk/helpers/beta/zod';
import { zodOutputFormat } from '@anthropic-ai/sdk/helpers/zod';
import { z } from 'zod';

import { degrees, told, Wire } from './told.mjs';

const test = (name, body) => always(name, { timeout: 60_000 }, body);
const connect = (more = {}) =>
  new Anthropic({ baseURL: told.url, apiKey: 'none', maxRetries: 0, ...more });
const client = connect();

const { model, busy, texts } = told;
const max_tokens = 1000;
const asks = (content) => [{ role: 'user', content }];
const WEATHER = z.object({ city: z.string(), days: z.array(z.number()) });
const TOOL = { name: 'get_weather', input_schema: z.toJSONSchema(WEATHER) };
const PLACE = z.object({ city: z.string(), degrees: z.number() });
const AGENT = { model, max_tokens, tools: [TOOL], thinking: { type: 'adaptive' } };

const blocksOf = ({ content }) =>
  content.map(({ id, ...block }) => ({ ...block, ...(id ? { id: 'some' } : {}) }));

const calls = texts.calls.map((input) => ({
  type: 'tool_use',
  id: 'some',
  name: 'get_weather',
  input,
}));

function results({ content }) {
  return content
    .filter(({ type }) => type === 'tool_use')
    .map(({ id, input }) => ({
      type: 'tool_result',
      tool_use_id: id,
      content: degrees(input.city),
    }));
}

test('models are listed in its own shape, paged through and shown', async () => {
  const listed = [];
  for await (const each of client.models.list({ limit: 1 })) listed.push(each);
  assert.deepEqual(
    listed.map(({ id }) => id),
    (await client.models.list({ limit: 1000 })).data.map(({ id }) => id),
  );
  const named = listed.filter(({ id }) => id === model);
  assert.equal(named.length, 1);
  assert.equal(named[0].type, 'model');
  assert.equal(named[0].display_name, model);
  assert.ok(!Number.isNaN(Date.parse(named[0].created_at)));
  assert.deepEqual(await client.models.retrieve(model), named[0]);
  assert.ok(listed.some(({ id }) => id === 'anthropic/scripted'));
  assert.ok(listed.some(({ id }) => id === 'claude-opus'));
});

test('a message comes as it was written, whole and streamed', async () => {
  const asked = { model, max_tokens, messages: asks('Hello?') };
  const whole = await client.messages.create(asked);
  assert.match(whole._request_id, /^req_/);
  assert.deepEqual([whole.type, whole.role, whole.model], ['message', 'assistant', model]);
  assert.deepEqual(whole.content, [{ type: 'text', text: texts.hello }]);
  assert.deepEqual([whole.stop_reason, whole.stop_sequence], ['end_turn', null]);
  const { usage } = whole;
  assert.equal(usage.output_tokens, new TextEncoder().encode(texts.hello).length + 1);
  const counted = await client.messages.countTokens({ model, messages: asked.messages });
  assert.deepEqual(counted.input_tokens, usage.input_tokens + usage.cache_read_input_tokens);

  const stream = client.messages.stream(asked);
  const pieces = [];
  stream.on('text', (piece) => pieces.push(piece));
  const streamed = await stream.finalMessage();
  assert.ok(pieces.length > 1);
  assert.equal(pieces.join(''), texts.hello);
  assert.deepEqual(blocksOf(streamed), blocksOf(whole));
  assert.deepEqual(
    [streamed.stop_reason, streamed.stop_sequence, streamed.usage.output_tokens],
    [whole.stop_reason, whole.stop_sequence, whole.usage.output_tokens],
  );
  const cut = await client.messages.create({ ...asked, stop_sequences: ['世'] });
  assert.deepEqual([cut.stop_reason, cut.stop_sequence], ['stop_sequence', '世']);
});

test('names of its own models are answered to', async () => {
  for (const name of ['claude-opus-4-8', 'claude-sonnet-5-5', 'claude-haiku-4-5']) {
    const answer = await client.messages.create({
      model: name,
      max_tokens,
      messages: asks('Hello?'),
    });
    assert.deepEqual([answer.model, answer.content[0].text], [name, texts.hello]);
  }
});

test('it thinks, speaks and calls in a stream, and takes the results', async () => {
  const messages = asks('How is the weather?');
  const wire = new Wire();
  const stream = connect({ fetch: wire.fetch }).messages.stream({ ...AGENT, messages });
  const thoughts = [];
  const inputs = [];
  const signed = [];
  stream.on('thinking', (piece) => thoughts.push(piece));
  stream.on('inputJson', (piece) => inputs.push(piece));
  stream.on('signature', (signature) => signed.push(signature));
  const streamed = await stream.finalMessage();
  assert.equal(streamed.stop_reason, 'tool_use');
  const [thought] = streamed.content;
  assert.deepEqual(blocksOf(streamed), [
    { type: 'thinking', thinking: texts.thought, signature: thought.signature },
    { type: 'text', text: texts.look },
    ...calls,
  ]);
  assert.ok(thought.signature.length > 0);
  assert.deepEqual(signed, [thought.signature]);
  assert.equal(thoughts.join(''), texts.thought);
  assert.deepEqual(
    inputs.join(''),
    told.written.join(''),
  );
  const kinds = wire.text.match(/(?<=^event: ).*$/gm).filter((kind) => kind !== 'ping');
  assert.equal(kinds[0], 'message_start');
  assert.deepEqual(kinds.slice(-2), ['message_delta', 'message_stop']);
  assert.equal(kinds.filter((kind) => kind === 'content_block_start').length, 4);
  assert.equal(kinds.filter((kind) => kind === 'content_block_stop').length, 4);

  const whole = await client.messages.create({ ...AGENT, messages });
  assert.deepEqual(blocksOf(whole), blocksOf(streamed));
  assert.equal(whole.usage.output_tokens, streamed.usage.output_tokens);

  for (const first of [streamed, whole]) {
    const turns = [
      ...messages,
      { role: 'assistant', content: first.content },
      { role: 'user', content: results(first) },
    ];
    const second = await client.messages.create({ ...AGENT, messages: turns });
    assert.deepEqual([second.stop_reason, second.content[0].text], ['end_turn', texts.said]);
    assert.ok(second.usage.cache_read_input_tokens > first.usage.input_tokens);
  }
});

test('input of a call that has to come is told while it is written', async () => {
  const stream = client.messages.stream({
    model,
    max_tokens,
    messages: asks('Only call.'),
    tools: [TOOL],
    tool_choice: { type: 'any' },
  });
  const pieces = [];
  stream.on('inputJson', (piece) => pieces.push(piece));
  const message = await stream.finalMessage();
  assert.ok(pieces.length > 1);
  assert.equal(pieces.join(''), told.written[0]);
  assert.deepEqual(blocksOf(message), [calls[0]]);
  assert.equal(message.stop_reason, 'tool_use');
});

for (const stream of [false, true]) {
  test(`its own loop of tools goes round, ${stream ? 'streamed' : 'whole'}`, async () => {
    const called = [];
    const runner = client.beta.messages.toolRunner({
      model,
      max_tokens,
      stream,
      messages: asks('How is the weather?'),
      tools: [
        betaZodTool({
          name: 'get_weather',
          description: 'Tell the weather.',
          inputSchema: WEATHER,
          run: (call) => {
            called.push(call);
            return degrees(call.city);
          },
        }),
      ],
    });
    const last = await runner.runUntilDone();
    assert.equal(last.content.at(-1).text, texts.said);
    assert.deepEqual(called, texts.calls);
  });
}

test('an answer is held to a schema and parsed by the helpers', async () => {
  const asked = {
    model,
    max_tokens,
    messages: asks('Say it as JSON.'),
    output_config: { format: zodOutputFormat(PLACE) },
  };
  const whole = await client.messages.parse(asked);
  assert.deepEqual(whole.parsed_output, texts.place);
  const streamed = await client.messages.stream(asked).finalMessage();
  assert.deepEqual(streamed.parsed_output, texts.place);
});

test('errors are of the SDK’s own classes', async () => {
  const messages = asks('Hello?');
  const failed = async (ask, Kind, status, type) => {
    const error = await ask().then(
      () => assert.fail('it was answered'),
      (reason) => reason,
    );
    assert.ok(error instanceof Kind, `${error}`);
    assert.deepEqual([error.status, error.type, error.error.type], [status, type, 'error']);
    assert.match(error.requestID, /^req_/);
    assert.equal(error.error.request_id, error.requestID);
    return error;
  };
  const wrong = await failed(
    () => client.messages.create({ model, max_tokens, messages, stop_sequences: [7] }),
    Anthropic.BadRequestError,
    400,
    'invalid_request_error',
  );
  assert.match(wrong.message, /stop_sequences/);
  const long = await failed(
    () => client.messages.create({ model, max_tokens, messages: asks('long '.repeat(20_000)) }),
    Anthropic.BadRequestError,
    400,
    'invalid_request_error',
  );
  assert.match(long.message, /prompt is too long: \d+ tokens > \d+ maximum/);
  for (const ask of [
    () => client.messages.create({ model: 'absent', max_tokens, messages }),
    () => client.messages.create({ model: 'absent', max_tokens, messages, stream: true }),
    () => client.messages.countTokens({ model: 'absent', messages }),
    () => client.models.retrieve('absent'),
  ])
    await failed(ask, Anthropic.NotFoundError, 404, 'not_found_error');
});

test('an answer that breaks off is an error in its stream', async () => {
  const stream = client.messages.stream({
    model,
    max_tokens,
    messages: asks('Leave the form.'),
    output_config: { format: zodOutputFormat(PLACE) },
  });
  let text = '';
  stream.on('text', (piece) => (text += piece));
  await assert.rejects(stream.finalMessage(), (error) => {
    assert.ok(error instanceof Anthropic.APIError, `${error}`);
    assert.equal(error.type, 'invalid_request_error');
    assert.match(error.message, /leave the form/);
    return true;
  });
  assert.match(text, /^\{"city": "Köln"/);
});

test('pings before message_start are passed over, and a full queue is a 429', async () => {
  const wire = new Wire();
  const listening = connect({ fetch: wire.fetch });
  const asked = { model: busy, max_tokens, messages: asks('Hello?') };
  const holding = client.messages.stream({ ...asked, messages: asks('Take your time.') });
  await holding.emitted('text');
  // The only place is taken: this one waits, and the next has nowhere to.
  const waiting = listening.messages.stream(asked);
  await wire.has('event: ping');
  await assert.rejects(client.messages.create(asked), (error) => {
    assert.ok(error instanceof Anthropic.RateLimitError, `${error}`);
    assert.deepEqual([error.status, error.type], [429, 'rate_limit_error']);
    assert.ok(Number(error.headers.get('retry-after')) > 0);
    return true;
  });
  assert.ok(!wire.text.includes('message_start'));
  holding.abort();
  await assert.rejects(holding.done(), Anthropic.APIUserAbortError);
  const message = await waiting.finalMessage();
  assert.deepEqual(blocksOf(message), [{ type: 'text', text: texts.short }]);
  assert.ok(wire.text.indexOf('event: ping') < wire.text.indexOf('event: message_start'));
});
