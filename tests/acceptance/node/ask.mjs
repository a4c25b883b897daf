// Asks one question through the gateway, plainly and as a stream; prints both answers as one line of JSON.
import OpenAI from "openai";

const [baseURL, apiKey, knowledgeBase, question] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: question }];

const plain = await client.chat.completions.create(
  { model: "local/extractive", messages, bonito: { knowledge_base: knowledgeBase } },
);
const stream = await client.chat.completions.create(
  { model: "local/extractive", messages, stream: true },
  { headers: { "X-Bonito-Knowledge-Base": knowledgeBase } },
);
let streamed = "";
let streamedSources = [];
for await (const chunk of stream) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  streamedSources = chunk.bonito?.sources ?? streamedSources;
}
console.log(JSON.stringify({ plain: plain.choices[0].message.content, sources: plain.bonito.sources, streamed, streamedSources }));
