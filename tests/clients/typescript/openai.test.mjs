// The OpenAI SDK for TypeScript at a fleet with a scripted model: what it makes of what comes.

import assert from 'node:assert/strict';
import { test as always } from 'node:test';

import OpenAI from 'openai';
import { zodFunction, zodResponseFormat, zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';

import { degrees, told, Wire } from './told.mjs';

const test = (name, body) => always(name, { timeout: 60_000 }, body);
const connect = (more = {}) =>
  new OpenAI({ baseURL: `${told.url}/v1`, apiKey: 'none', maxRetries: 0, ...more });
const client = connect();

const { model, busy, texts } = told;
const asks = (content) => [{ role: 'user', content }];
const WEATHER = z.object({ city: z.string(), days: z.array(z.number()) });
const TOOL = zodFunction({ name: 'get_weather', parameters: WEATHER });
const RESPONSES_TOOL = { type: 'function', ...TOOL.function };
const PLACE = z.object({ city: z.string(), degrees: z.number() });

/** The same, but for what differs from answer to answer. */
function without(value, ...names) {
  if (Array.isArray(value)) return value.map((each) => without(each, ...names));
  if (value === null || typeof value !== 'object') return value;
  const kept = Object.entries(value).filter(([name]) => !names.includes(name));
  return Object.fromEntries(kept.map(([name, each]) => [name, without(each, ...names)]));
}

test('models are listed, paged through and shown', async () => {
  const listed = [];
  for await (const each of client.models.list()) listed.push(each);
  const named = listed.filter(({ id }) => id === model);
  assert.equal(named.length, 1);
  assert.equal(named[0].object, 'model');
  assert.equal(typeof named[0].created, 'number');
  assert.equal(named[0].owned_by, 'cortex');
  assert.deepEqual(await client.models.retrieve(model), named[0]);
  const alias = await client.models.retrieve('scripted');
  assert.equal(alias.alias_of, model);
});

test('a chat comes as it was written, whole and streamed', async () => {
  const asked = { model, messages: asks('Hello?') };
  const whole = await client.chat.completions.create(asked);
  assert.match(whole._request_id, /^[0-9a-f]{24}$/);
  assert.equal(whole.object, 'chat.completion');
  assert.deepEqual(without(whole.choices, 'logprobs'), [
    {
      index: 0,
      finish_reason: 'stop',
      message: { role: 'assistant', content: texts.hello, refusal: null },
    },
  ]);
  const { usage } = whole;
  assert.equal(usage.completion_tokens, new TextEncoder().encode(texts.hello).length + 1);
  assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);

  const stream = client.chat.completions.stream({
    ...asked,
    stream_options: { include_usage: true },
  });
  let pieces = 0;
  stream.on('content', () => (pieces += 1));
  const streamed = await stream.finalChatCompletion();
  assert.ok(pieces > 1);
  const differs = ['id', 'created', 'cached_tokens', 'parsed'];
  assert.deepEqual(without(streamed, ...differs), without(whole, ...differs));
});

test('thoughts come beside the text, whole and streamed', async () => {
  const asked = { model, messages: asks('How is the weather?'), tools: [TOOL] };
  const whole = await client.chat.completions.create(asked);
  assert.equal(whole.choices[0].message.reasoning_content, texts.thought);
  assert.ok(whole.usage.completion_tokens_details.reasoning_tokens >= texts.thought.length);
  let thought = '';
  const chunks = await client.chat.completions.create({ ...asked, stream: true });
  for await (const { object, choices } of chunks) {
    assert.equal(object, 'chat.completion.chunk');
    thought += choices[0]?.delta.reasoning_content ?? '';
  }
  assert.equal(thought, texts.thought);
});

test('calls are streamed, parsed and answered', async () => {
  const messages = asks('How is the weather?');
  const stream = client.chat.completions.stream({ model, messages, tools: [TOOL] });
  const deltas = {};
  stream.on('tool_calls.function.arguments.delta', (event) => {
    (deltas[event.index] ??= []).push(event.arguments_delta);
  });
  const done = [];
  stream.on('tool_calls.function.arguments.done', (event) => done.push(event.parsed_arguments));
  const { choices } = await stream.finalChatCompletion();
  assert.equal(choices.length, 1);
  const { finish_reason, message } = choices[0];
  assert.equal(finish_reason, 'tool_calls');
  assert.equal(message.content, texts.look);
  assert.deepEqual(
    message.tool_calls.map(({ type, function: called }) => [
      type,
      called.name,
      called.parsed_arguments,
    ]),
    texts.calls.map((call) => ['function', 'get_weather', call]),
  );
  assert.deepEqual(done, texts.calls);
  message.tool_calls.forEach((call, index) => {
    assert.equal(deltas[index].join(''), call.function.arguments);
  });
  assert.equal(new Set(message.tool_calls.map(({ id }) => id)).size, 2);
  const results = message.tool_calls.map(({ id, function: { parsed_arguments } }) => ({
    role: 'tool',
    tool_call_id: id,
    content: degrees(parsed_arguments.city),
  }));
  const turns = [...messages, message, ...results];
  const answer = await client.chat.completions.create({ model, messages: turns, tools: [TOOL] });
  assert.equal(answer.choices[0].message.content, texts.said);
});

test('arguments of a call that has to come are told while they are written', async () => {
  const asked = { model, tool_choice: 'required' };
  const messages = asks('Only call.');
  const chat = client.chat.completions.stream({ ...asked, messages, tools: [TOOL] });
  const pieces = [];
  chat.on('tool_calls.function.arguments.delta', ({ arguments_delta: piece }) => {
    if (piece) pieces.push(piece);
  });
  const { choices } = await chat.finalChatCompletion();
  assert.ok(pieces.length > 1);
  assert.equal(pieces.join(''), told.written[0]);
  assert.deepEqual(choices[0].message.tool_calls[0].function.parsed_arguments, texts.calls[0]);

  const stream = client.responses.stream({ ...asked, input: messages, tools: [RESPONSES_TOOL] });
  const deltas = [];
  stream.on('response.function_call_arguments.delta', ({ delta }) => deltas.push(delta));
  const [call] = (await stream.finalResponse()).output;
  assert.ok(deltas.length > 1);
  assert.equal(deltas.join(''), told.written[0]);
  assert.deepEqual([call.arguments, call.status], [told.written[0], 'completed']);
});

for (const stream of [false, true]) {
  test(`its own loop of tools goes round, ${stream ? 'streamed' : 'whole'}`, async () => {
    const called = [];
    const run = client.chat.completions.runTools({
      model,
      stream,
      messages: asks('How is the weather?'),
      tools: [
        zodFunction({
          name: 'get_weather',
          parameters: WEATHER,
          function: (call) => {
            called.push(call);
            return degrees(call.city);
          },
        }),
      ],
    });
    assert.equal(await run.finalContent(), texts.said);
    assert.deepEqual(called, texts.calls);
    assert.deepEqual(
      run.messages.map(({ role }) => role),
      ['user', 'assistant', 'tool', 'tool', 'assistant'],
    );
  });
}

test('a response thinks, speaks, calls and goes on, by items and by its id', async () => {
  const asked = { model, input: 'How is the weather?', tools: [RESPONSES_TOOL] };
  const stream = client.responses.stream(asked);
  const events = [];
  for await (const event of stream) events.push(event);
  const streamed = await stream.finalResponse();
  assert.deepEqual(
    events.map(({ sequence_number }) => sequence_number),
    events.map((_, index) => index),
  );
  assert.equal(events[0].type, 'response.created');
  assert.equal(events.at(-1).type, 'response.completed');
  assert.deepEqual(
    streamed.output.map(({ type, status }) => [type, status]),
    ['reasoning', 'message', 'function_call', 'function_call'].map((type) => [type, 'completed']),
  );
  const [thought, , ...calls] = streamed.output;
  assert.equal(thought.content[0].text, texts.thought);
  assert.equal(streamed.output_text, texts.look);
  assert.deepEqual(
    calls.map((call) => call.parsed_arguments),
    texts.calls,
  );
  for (const [index, call] of calls.entries()) {
    const deltas = events.filter(
      ({ type, output_index }) =>
        type === 'response.function_call_arguments.delta' && output_index === index + 2,
    );
    assert.equal(deltas.map(({ delta }) => delta).join(''), call.arguments);
  }
  const whole = await client.responses.parse(asked);
  const differs = ['id', 'call_id', 'created_at', 'completed_at', 'cached_tokens', '_request_id'];
  assert.deepEqual(without(streamed, ...differs), without(whole, ...differs));

  const results = calls.map(({ call_id, parsed_arguments }) => ({
    type: 'function_call_output',
    call_id,
    output: degrees(parsed_arguments.city),
  }));
  const input = [...asks(asked.input), ...streamed.output, ...results];
  const byItems = await client.responses.create({ ...asked, input, store: false });
  assert.equal(byItems.output_text, texts.said);
  const byId = await client.responses.create({
    ...asked,
    input: results,
    previous_response_id: streamed.id,
  });
  assert.equal(byId.output_text, texts.said);
  assert.equal(byId.previous_response_id, streamed.id);
  assert.equal((await client.responses.retrieve(byId.id)).output_text, texts.said);
});

test('an answer is held to a schema and parsed by the helpers', async () => {
  const messages = asks('Say it as JSON.');
  const response_format = zodResponseFormat(PLACE, 'place');
  const chat = await client.chat.completions.parse({ model, messages, response_format });
  assert.deepEqual(chat.choices[0].message.parsed, texts.place);
  const stream = client.chat.completions.stream({ model, messages, response_format });
  const final = await stream.finalChatCompletion();
  assert.deepEqual(final.choices[0].message.parsed, texts.place);
  const text = { format: zodTextFormat(PLACE, 'place') };
  const response = await client.responses.parse({ model, input: messages, text });
  assert.deepEqual(response.output_parsed, texts.place);
});

test('errors are of the SDK’s own classes', async () => {
  const messages = asks('Hello?');
  const failed = async (ask, Kind, expected) => {
    const error = await ask().then(
      () => assert.fail('it was answered'),
      (reason) => reason,
    );
    assert.ok(error instanceof Kind, `${error}`);
    const { status, code, param, type } = error;
    assert.deepEqual({ status, code, param, type }, expected);
    assert.match(error.requestID, /^[0-9a-f]{24}$/);
  };
  const type = 'invalid_request_error';
  await failed(
    () => client.chat.completions.create({ model, messages, top_p: 2 }),
    OpenAI.BadRequestError,
    { status: 400, code: 'invalid_request', param: 'top_p', type },
  );
  for (const ask of [
    () => client.chat.completions.create({ model: 'absent', messages }),
    () => client.chat.completions.create({ model: 'absent', messages, stream: true }),
    () => client.responses.create({ model: 'absent', input: 'Hello?' }),
    () => client.models.retrieve('absent'),
  ])
    await failed(ask, OpenAI.NotFoundError, {
      status: 404,
      code: 'model_not_found',
      param: 'model',
      type,
    });
  await failed(
    () => client.responses.create({ model, input: 'Hello?', previous_response_id: 'resp_0' }),
    OpenAI.BadRequestError,
    { status: 400, code: 'previous_response_not_found', param: 'previous_response_id', type },
  );
});

test('an answer that breaks off is an error in its stream', async () => {
  const response_format = zodResponseFormat(PLACE, 'place');
  const messages = asks('Leave the form.');
  const stream = client.chat.completions.stream({ model, messages, response_format });
  let text = '';
  stream.on('content', (piece) => (text += piece));
  await assert.rejects(stream.finalChatCompletion(), (error) => {
    assert.ok(error instanceof OpenAI.APIError);
    assert.match(error.message, /leave the form/);
    return true;
  });
  assert.match(text, /^\{"city": "Köln"/);
});

test('a wait for a place is passed over, and a full queue is a 429', async () => {
  const wire = new Wire();
  const listening = connect({ fetch: wire.fetch });
  const messages = asks('Take your time.');
  const holding = await client.chat.completions.create({ model: busy, messages, stream: true });
  for await (const chunk of holding) {
    if (!chunk.choices[0]?.delta.content) continue;
    // The only place is taken: this one waits, and the next has nowhere to.
    const waiting = listening.chat.completions.stream({ model: busy, messages: asks('Hello?') });
    const answered = waiting.finalChatCompletion();
    await wire.has(': loading stage=queued');
    await assert.rejects(
      client.chat.completions.create({ model: busy, messages: asks('Hello?') }),
      (error) => {
        assert.ok(error instanceof OpenAI.RateLimitError, `${error}`);
        assert.equal(error.status, 429);
        assert.equal(error.code, 'queue_full');
        assert.ok(Number(error.headers.get('retry-after')) > 0);
        return true;
      },
    );
    assert.ok(!wire.text.includes('data: '), 'nothing but signs of life so far');
    holding.controller.abort();
    const { choices } = await answered;
    assert.equal(choices[0].message.content, texts.short);
    return;
  }
  assert.fail('it did not hold its place');
});
