// What answers hold.

#include "serve/openapi_parts.h"

namespace tailor::openapi {
namespace {

Json usage(bool generated) {
  Fields out{{"prompt_tokens", integer()}, {"total_tokens", integer()}};
  if (!generated) return told(out);
  out.insert(out.begin() + 1, {"completion_tokens", integer()});
  out.emplace_back("prompt_tokens_details", told({{"cached_tokens", integer("of the prompt, not computed again")}}));
  return told(out, {"prompt_tokens_details"});
}

Fields head(const char* object, const char* id) {
  return {{"id", string(id)},
          {"object", constant(object)},
          {"created", integer("Unix seconds")},
          {"model", string()},
          {"system_fingerprint", string("changes with the weights and the program")}};
}

Json finish_reason(bool open) {
  const Json reason = one_of({"stop", "length", "tool_calls"},
                             "stop: the answer came to its end or to a stop text; length: to max_tokens");
  return open ? or_null(reason) : reason;
}

Json list_of(const char* item, Fields more = {}) {
  Fields out{{"object", constant("list")}, {"data", list(ref(item))}};
  out.insert(out.end(), more.begin(), more.end());
  return told(out);
}

void add_tool_calls(Json& schemas) {
  const Json function = told({{"name", string("of one of the request's tools, where the call was forced")},
                              {"arguments", string("the text of a JSON object")}});
  const Fields call{{"id", string("call_…, for the tool_call_id of its answer")},
                    {"type", constant("function")},
                    {"function", function}};
  schemas["ToolCall"] = told(call);
  Fields numbered{{"index", integer("of the call among those of its message")}};
  numbered.insert(numbered.end(), call.begin(), call.end());
  schemas["ToolCallDelta"] = told(numbered, {}, "a whole call: none comes in parts");
}

void add_text_answers(Json& schemas) {
  const Json bytes = list(integer("", 0, 255), "of the token, which need not be whole characters");
  const Json top = told({{"token", string()}, {"logprob", number()}, {"bytes", bytes}});
  schemas["ChatLogprobs"] =
      told({{"content",
             list(told({{"token", string()}, {"logprob", number()}, {"bytes", bytes}, {"top_logprobs", list(top)}}))},
            {"refusal", Json{{"type", "null"}}}});
  schemas["CompletionLogprobs"] =
      told({{"tokens", list(string())},
            {"token_logprobs", list(or_null(number()), "null: the first token of a prompt")},
            {"top_logprobs", list(or_null(map(number())))},
            {"text_offset", list(integer("", 0, INT64_MAX),
                                 "where tokens begin, in characters (code points) from the beginning of the text; of "
                                 "an echo, from that of the prompt")}});
  schemas["Usage"] = usage(true);
  add_tool_calls(schemas);

  const Json stop_reason = any_of({string(), integer()}, "what of stop or stop_token_ids ended the answer");
  Fields chat = head("chat.completion", "chatcmpl-…");
  chat.emplace_back("choices",
                    list(told({{"index", integer()},
                               {"message", told({{"role", constant("assistant")},
                                                 {"content", or_null(string())},
                                                 {"refusal", Json{{"type", "null"}}},
                                                 {"reasoning_content", string("what the model thought before")},
                                                 {"reasoning", string("the same")},
                                                 {"tool_calls", list(ref("ToolCall"))}},
                                                {"reasoning_content", "reasoning", "tool_calls"})},
                               {"logprobs", or_null(ref("ChatLogprobs"))},
                               {"finish_reason", finish_reason(false)},
                               {"stop_reason", stop_reason}},
                              {"stop_reason"})));
  chat.emplace_back("usage", ref("Usage"));
  schemas["ChatCompletion"] = told(chat);

  Fields chunk = head("chat.completion.chunk", "chatcmpl-…");
  chunk.emplace_back("choices",
                     list(told({{"index", integer()},
                                {"delta", told({{"role", constant("assistant")},
                                                {"content", string()},
                                                {"reasoning_content", string()},
                                                {"reasoning", string()},
                                                {"tool_calls", list(ref("ToolCallDelta"))}},
                                               {"role", "content", "reasoning_content", "reasoning", "tool_calls"})},
                                {"logprobs", or_null(ref("ChatLogprobs"))},
                                {"finish_reason", finish_reason(true)},
                                {"stop_reason", stop_reason}},
                               {"stop_reason"}),
                          "empty in the event that counts tokens"));
  chunk.emplace_back("usage", ref("Usage"));
  schemas["ChatCompletionChunk"] = told(chunk, {"usage"});

  const auto completion = [&](bool open) {
    Fields out = head("text_completion", "cmpl-…");
    out.emplace_back("choices", list(told({{"index", integer("the prompt's times n, and the answer's")},
                                           {"text", string()},
                                           {"logprobs", or_null(ref("CompletionLogprobs"))},
                                           {"finish_reason", finish_reason(open)},
                                           {"stop_reason", stop_reason}},
                                          {"stop_reason"})));
    out.emplace_back("usage", ref("Usage"));
    return told(out, open ? std::set<std::string>{"usage"} : std::set<std::string>{});
  };
  schemas["Completion"] = completion(false);
  schemas["CompletionChunk"] = completion(true);
}

/// Of base models what llama.cpp tells of them and more, of packages how they were made.
Json model_meta() {
  const Fields fields{{"vocab_type", integer("the kind of vocabulary, by llama.cpp's numbers")},
                      {"n_vocab", integer("tokens of the vocabulary")},
                      {"vocab_size", integer("the same")},
                      {"n_ctx_train", integer("positions that the model was made for")},
                      {"n_embd", integer("width")},
                      {"n_params", integer("parameters")},
                      {"size", integer("bytes of the weights")},
                      {"file_type", string("that most weights have: q4_1")},
                      {"architecture", string("llama, bert, …")},
                      {"method", string("that made the package")},
                      {"base_model", string("of the package")},
                      {"scores", said({{"type", "object"}}, "of the package, on the test part of its data")},
                      {"version", string("of the package in the store")}};
  return object(fields, {}, "of a base model its file; of a package how it was made");
}

void add_model_answers(Json& schemas) {
  schemas["Model"] = told(
      {{"id", string()},
       {"object", constant("model")},
       {"created", integer("Unix seconds")},
       {"owned_by", string()},
       {"root", string()},
       {"parent", or_null(string("of an adapter: the model that it stands on"))},
       {"max_model_len", integer("prompt and answer together, in tokens")},
       {"capabilities", list(one_of({"chat", "completions", "classify", "nearest", "tag", "extract", "embeddings"}))},
       {"labels", list(string())},
       {"meta", model_meta()}},
      {"max_model_len", "labels", "meta"});
  schemas["ModelList"] = list_of("Model");
  schemas["Tokens"] = told({{"tokens", list(any_of({integer(), told({{"id", integer()}, {"piece", string()}})}),
                                            "ids, or with_pieces objects")},
                            {"count", integer()},
                            {"max_model_len", integer()}});
  const Json token = or_null(string());
  schemas["TokenizerInfo"] = told({{"bos_token", token},
                                   {"eos_token", token},
                                   {"pad_token", token},
                                   {"unk_token", token},
                                   {"vocab_size", integer()},
                                   {"max_model_len", integer()}});
  schemas["DetokenizedText"] = told({{"content", string()}, {"prompt", string("the same, as vLLM calls it")}});
  schemas["TemplatedText"] = told({{"prompt", string()}, {"count", integer("tokens")}});
}

void add_vector_answers(Json& schemas) {
  schemas["Embedding"] =
      told({{"object", constant("embedding")},
            {"index", integer()},
            {"embedding", any_of({list(number()), string("base64 of little-endian 32-bit floats")})}});
  schemas["EmbeddingList"] = list_of("Embedding", {{"model", string()}, {"usage", usage(false)}});
  schemas["Ranking"] = told({{"id", string()},
                             {"object", constant("list")},
                             {"model", string()},
                             {"results", list(told({{"index", integer("of the document in the request")},
                                                    {"relevance_score", number()},
                                                    {"document", told({{"text", string()}})}},
                                                   {"document"}),
                                              "the most relevant first")},
                             {"usage", usage(false)}});
  schemas["Classification"] =
      told({{"index", integer()},
            {"label", or_null(string("null: none is sure enough"))},
            {"confidence", number()},
            {"abstained", boolean()},
            {"labels", list(string(), "of a model that gives several")},
            {"value", number("of a model that gives a number")},
            {"probabilities", map(number())},
            {"nearest", list(told({{"text", string()}, {"label", string()}, {"similarity", number("cosine")}}),
                             "training rows, the nearest first")}},
           {"label", "confidence", "abstained", "labels", "value", "probabilities", "nearest"});
  schemas["ClassificationList"] =
      list_of("Classification", {{"model", string()}, {"milliseconds", number("that it was computed for")}});
}

void add_word_answers(Json& schemas) {
  const Fields more{{"model", string()},
                    {"offsets", one_of({"codepoints", "utf16", "utf8"}, "what start and end count")},
                    {"usage", usage(false)},
                    {"milliseconds", number("that it was computed for")}};
  schemas["Entity"] = told({{"label", string()},
                            {"text", string()},
                            {"start", integer()},
                            {"end", integer("the first that does not belong to it")},
                            {"score", number("probability, the lowest of its words")}});
  schemas["Tags"] = told({{"index", integer()},
                          {"entities", list(ref("Entity"), "from left to right; of a model whose tags mark spans")},
                          {"words", list(ref("Entity"), "every word; its label is its tag")}},
                         {"entities", "words"});
  schemas["TagList"] = list_of("Tags", more);
  schemas["Answer"] = told({{"index", integer()},
                            {"answer", or_null(string("null: the text has none"))},
                            {"start", or_null(integer())},
                            {"end", or_null(integer("the first that does not belong to it"))},
                            {"score", number("probability, among all pieces that could be the answer")},
                            {"no_answer", boolean()}},
                           {"no_answer"});
  schemas["AnswerList"] = list_of("Answer", more);
}

}  // namespace

void add_answer_schemas(Json& schemas) {
  schemas["Error"] =
      told({{"error", told({{"message", string("what is wrong, and what is expected")},
                            {"type", string("invalid_request_error, server_overloaded, …")},
                            {"param", or_null(string("the field: messages[2].content"))},
                            {"code", or_null(string("model_not_found, context_length_exceeded, …"))}})}});
  schemas["HealthError"] = told({{"error", told({{"code", integer()}, {"message", string()}, {"type", string()}})}}, {},
                                "as llama.cpp has it");
  schemas["Bytes"] = said(Json::object(), "as they were stored");
  schemas["Text"] = string();
  schemas["Done"] = told({{"message", string("Success: …")}}, {}, "as vLLM has it");
  schemas["State"] = told({{"status", constant("ok")}});
  schemas["Version"] = told({{"version", string()}});
  schemas["OpenApi"] = said({{"type", "object"}, {"required", {"openapi", "info", "paths"}}}, "this document");
  add_text_answers(schemas);
  add_model_answers(schemas);
  add_vector_answers(schemas);
  add_word_answers(schemas);
}

}  // namespace tailor::openapi
