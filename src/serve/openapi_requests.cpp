// What requests hold. The ranges are those that the handlers read with.

#include "serve/openapi_parts.h"

namespace tailor::openapi {
namespace {

constexpr std::int64_t kMostTokens = 1 << 20, kMostToken = INT32_MAX;

Json token_ids(std::size_t least) {
  return {{"type", "array"}, {"items", integer("", 0, kMostToken)}, {"minItems", least}};
}

/// A text, texts, token ids, or lists of token ids.
Json texts_or_tokens(std::size_t most, const char* text) {
  return any_of({string(), list(string(), "", 1, most), token_ids(1), list(token_ids(1), "", 1, most)}, text);
}

Json json_schema(const char* text) {
  return said({{"type", "object"}}, text);
}

Fields guided(const std::string& prefix) {
  return {{prefix + "json",
           any_of({json_schema("a JSON schema"), string("its text")}, "the answer follows this JSON schema")},
          {prefix + "regex", string("the answer is matched by this expression")},
          {prefix + "choice", list(string(), "the answer is one of these", 1, 10'000)},
          {prefix + "grammar", string("the answer follows this grammar, in GBNF")},
          {prefix + "json_object", boolean("the answer is a JSON object")}};
}

Json response_format() {
  const Json named = taken({{"name", string()},
                            {"description", string("not read, which X-Ignored-Params tells")},
                            {"strict", boolean("it is enforced in any case")},
                            {"schema", json_schema("of the answer")}},
                           {"schema"});
  return any_of(
      {taken({{"type", constant("text")}}, {"type"}),
       taken({{"type", constant("json_object")}, {"schema", json_schema("as llama.cpp has it")}}, {"type"}),
       taken({{"type", constant("json_schema")}, {"json_schema", named}}, {"type", "json_schema"}),
       taken({{"type", constant("json_schema")}, {"schema", json_schema("as llama.cpp has it")}}, {"type", "schema"})},
      "what the answer must follow; enforced, or the request is refused. A request names one format at most, here or "
      "in another field");
}

/// read_generation_params() and read_constraint().
Fields generation(const ApiLimits& limits) {
  Json bias = map(number("", -100, 100, 0), "token ids and what is added to their logits, from -100 to 100");
  bias["maxProperties"] = limits.logit_bias;
  bias["propertyNames"] = {{"pattern", "^[0-9]{1,10}$"}};
  Fields out{
      {"model", string("a name of GET /v1/models; absent: the first one")},
      {"temperature", number("0: always the likeliest token", 0, 2, 1)},
      {"top_p", number("draws from the likeliest tokens that have this much probability together", 0, 1, 1)},
      {"top_k", integer("draws from so many of the likeliest tokens; 0 and -1: all", -1, kMostTokens)},
      {"min_p", number("leaves out tokens below this part of the likeliest one's probability", 0, 1, 0)},
      {"presence_penalty", number("taken from logits of tokens that the answer has", -2, 2, 0)},
      {"frequency_penalty", number("taken from logits once for each time that the answer has the token", -2, 2, 0)},
      {"repetition_penalty", number("divides logits of tokens that prompt or answer have", 0.01, 10, 1)},
      {"repeat_penalty", number("the same, as llama.cpp calls it", 0.01, 10, 1)},
      {"max_completion_tokens", integer("most tokens of an answer", 0, kMostTokens)},
      {"max_tokens", integer("the same, by its older name", 0, kMostTokens)},
      {"min_tokens", integer("the answer does not end before, unless a format is complete", 0, kMostTokens)},
      {"ignore_eos", boolean("the model's own end does not end an answer, unless a format is complete")},
      {"include_stop_str_in_output", boolean("the answer ends with the stop text that ended it")},
      {"stop",
       any_of({string(), list(string(), "", 0, limits.stop_texts)}, "texts that end an answer, of 256 bytes at most")},
      {"stop_token_ids", list(integer("", 0, kMostToken), "tokens that end an answer", 0, limits.stop_texts * 8)},
      {"seed", integer("draws in the same way again; with batch_invariant the answer is the same whatever runs beside "
                       "it or ran before",
                       INT64_MIN, INT64_MAX)},
      {"logit_bias", std::move(bias)},
      {"n", integer("answers of each prompt", 1, limits.choices)},
      {"stream", boolean("the answer comes as server-sent events")},
      {"stream_options", taken({{"include_usage", boolean("a last event counts tokens")},
                                {"continuous_usage_stats", boolean("each event counts tokens")},
                                {"include_obfuscation", boolean("has no effect, which X-Ignored-Params tells")}},
                               {}, "for streams only")},
      {"batch_invariant", boolean("the answer does not depend on what runs beside it; slower")},
      {"priority", integer("lower is sooner; below 0 only without keys, or with one of scope admin", -100, 100)},
      {"cache_salt", said({{"type", "string"}, {"maxLength", 1024}},
                          "beginnings of prompts are shared only with requests of the same salt")},
      {"response_format", response_format()},
      {"structured_outputs", taken(guided(""), {}, "as vLLM has it")},
      {"json_schema", json_schema("as llama.cpp has it")},
      {"grammar", string("GBNF, as llama.cpp has it")},
  };
  for (auto& field : guided("guided_")) out.push_back(std::move(field));
  return out;
}

Json content(const char* text) {
  const Json part = any_of({taken({{"type", one_of({"text", "input_text"})}, {"text", string()}}, {"type", "text"}),
                            taken({{"type", constant("refusal")}, {"refusal", string()}}, {"type", "refusal"})});
  return any_of({string(), list(part)}, text);
}

Json message() {
  const Json call =
      taken({{"id", said({{"type", "string"}, {"maxLength", 256}}, "")},
             {"type", string()},
             {"function", taken({{"name", string()}, {"arguments", string("the text of a JSON object")}}, {"name"})}},
            {"function"});
  Json id = said({{"type", "string"}, {"maxLength", 256}}, "");
  Fields usual{{"content", content("a text, or parts of one")}, {"name", id}, {"tool_call_id", id}};
  const auto of = [&](Json role, Fields more, std::vector<std::string> required) {
    Fields fields{{"role", std::move(role)}};
    fields.insert(fields.end(), usual.begin(), usual.end());
    fields.insert(fields.end(), more.begin(), more.end());
    required.insert(required.begin(), "role");
    return taken(fields, required);
  };
  constexpr const char* kUnread = "not read, which X-Ignored-Params tells";
  constexpr const char* kThoughts = "what it thought, for chat templates that show it; else told in X-Ignored-Params";
  const Fields assistant{{"tool_calls", list(call, "", 0, 128)},
                         {"refusal", string(kUnread)},
                         {"reasoning_content", string(kThoughts)},
                         {"reasoning", string(kThoughts)},
                         {"audio", said({{"type", "object"}}, kUnread)},
                         {"function_call", said({{"type", "object"}}, kUnread)},
                         {"annotations", list(Json{{"type", "object"}}, kUnread)}};
  return any_of({of(one_of({"system", "developer", "user", "tool", "function"}), {}, {"content"}),
                 of(constant("assistant"), assistant, {"content"}),
                 of(constant("assistant"), assistant, {"tool_calls"})});
}

Json example(Json schema, Json value) {
  schema["examples"] = Json::array({std::move(value)});
  return schema;
}

Json question() {
  return Json::array({{{"role", "user"}, {"content", "Where is my parcel?"}}});
}

}  // namespace

void add_request_schemas(const ApiLimits& limits, Json& schemas) {
  const Json model = string("a name of GET /v1/models; absent: the first one");
  const Json messages = list(ref("Message"), "the conversation", 1, limits.messages);
  schemas["Message"] = message();

  Fields chat = generation(limits);
  chat.insert(chat.begin() + 1, {"messages", messages});
  chat.emplace_back("logprobs", boolean("tells log probabilities of the answer's tokens"));
  const Json function = taken({{"name", string()},
                               {"description", string()},
                               {"parameters", json_schema("of the arguments")},
                               {"strict", boolean("holds where tool_choice forces a call; else it has no effect, "
                                                  "which X-Ignored-Params tells")}},
                              {"name"});
  chat.emplace_back("tools", list(taken({{"type", constant("function")}, {"function", function}}, {"type", "function"}),
                                  "that the model may call", 0, 128));
  chat.emplace_back("tool_choice",
                    any_of({one_of({"none", "auto", "required"}),
                            taken({{"type", constant("function")}, {"function", taken({{"name", string()}}, {"name"})}},
                                  {"type", "function"})}));
  chat.emplace_back("parallel_tool_calls",
                    boolean("false: an answer calls one tool at most, and ends with that call", true));
  chat.emplace_back("top_logprobs", integer("and of so many others; needs logprobs", 0, limits.top_logprobs));
  schemas["ChatCompletionRequest"] =
      example(taken(chat, {"messages"}), {{"messages", question()}, {"max_tokens", 16}, {"temperature", 0}});

  Fields completion = generation(limits);
  completion.insert(completion.begin() + 1,
                    {"prompt", texts_or_tokens(limits.prompts, "a text, texts, token ids, or lists of token ids")});
  completion.emplace_back("echo", boolean("the prompt comes first"));
  completion.emplace_back("logprobs",
                          integer("tells log probabilities of tokens, and so many others", 0, limits.top_logprobs));
  completion.emplace_back("best_of", integer("no other value than that of n is supported", 1, limits.choices));
  completion.emplace_back("suffix", string("no other value than \"\" is supported"));
  schemas["CompletionRequest"] =
      example(taken(completion, {"prompt"}), {{"prompt", "The parcel is"}, {"max_tokens", 8}, {"logprobs", 1}});

  schemas["EmbeddingRequest"] = example(
      taken({{"model", model},
             {"input", texts_or_tokens(limits.texts, "a text, texts, token ids, or lists of token ids")},
             {"truncate_prompt_tokens",
              integer("-1, or as many tokens as the model reads: longer texts are cut there; absent: they are refused",
                      -1, INT32_MAX)},
             {"encoding_format", one_of({"float", "base64"}, "base64: of little-endian 32-bit floats")},
             {"dimensions", integer("the first so many, at length 1 again", 1, INT32_MAX)}},
            {"input"}),
      {{"input", {"Where is my parcel?", "It came broken."}}});
  schemas["RerankRequest"] = example(
      taken({{"model", model},
             {"query", string()},
             {"documents", any_of({list(string(), "", 1, limits.texts),
                                   list(taken({{"text", string()}}, {"text"}), "", 1, limits.texts), string()},
                                  "what is longer than the model reads is cut")},
             {"top_n", integer("tells so many; absent: all", 1, INT32_MAX)},
             {"return_documents", boolean("tells their texts")}},
            {"query", "documents"}),
      {{"query", "late parcel"}, {"documents", {"Your parcel is delayed.", "We sell garden chairs."}}, {"top_n", 1}});
  const Json pair = taken({{"text", string()}, {"text_pair", string()}}, {"text", "text_pair"});
  schemas["ClassifyRequest"] = example(
      taken(
          {{"model", model},
           {"input", any_of({string(), list(string(), "", 1, limits.texts), pair, list(pair, "", 1, limits.texts)},
                            "one text or several; for packages of pairs, pairs")},
           {"probabilities", boolean("of all labels", true)},
           {"label_only",
            boolean("the label without confidence and probabilities; of packages on a language model quicker")},
           {"nearest", integer("so many of the nearest training rows, of models with the capability nearest", 0, 50)}},
          {"input"}),
      {{"input", "Where is my parcel?"}});
  const Json offsets = one_of({"codepoints", "utf16", "utf8"},
                              "how start and end count: characters as Python counts them (as a rule), UTF-16 "
                              "units as JavaScript and Java do, or bytes");
  schemas["TagRequest"] =
      example(taken({{"model", model},
                     {"input", any_of({string(), list(string(), "", 1, limits.texts)}, "one text or several")},
                     {"words", boolean("every word with its tag, beside the entities")},
                     {"offsets", offsets}},
                    {"input"}),
              {{"input", "Anna moved to Oslo."}});
  const Json asked =
      taken({{"question", string()}, {"context", string("the text to look in")}}, {"question", "context"});
  schemas["ExtractRequest"] = example(taken({{"model", model},
                                             {"question", string()},
                                             {"context", string("the text to look in")},
                                             {"input", any_of({asked, list(asked, "", 1, limits.texts)},
                                                              "in the place of question and context, for several")},
                                             {"offsets", offsets}},
                                            {}, "question and context, or input"),
                                      {{"question", "Where does Anna live?"}, {"context", "Anna lives in Oslo."}});
  schemas["TokenizeRequest"] =
      example(taken({{"model", model},
                     {"content", string("the text")},
                     {"prompt", string("the text, as vLLM calls it")},
                     {"messages", messages},
                     {"add_special", boolean("adds the tokens that begin and end a text")},
                     {"add_special_tokens", boolean("the same, as vLLM calls it")},
                     {"parse_special", boolean("reads names of control tokens as these", true)},
                     {"with_pieces", boolean("tells each token's text")}},
                    {}, "one of content, prompt and messages"),
              {{"content", "Where is my parcel?"}, {"with_pieces", true}});
  schemas["DetokenizeRequest"] =
      example(taken({{"model", model}, {"tokens", token_ids(0)}}, {"tokens"}), {{"tokens", {400, 401}}});
  schemas["ApplyTemplateRequest"] =
      example(taken({{"model", model}, {"messages", messages}}, {"messages"}), {{"messages", question()}});

  schemas["LoadModelRequest"] = example(taken({{"name", string("as clients ask for it")},
                                               {"package", string("NAME or NAME@VERSION of the store")},
                                               {"model", string("of the models' directory")},
                                               {"adapter", string("NAME or NAME@VERSION of the store")},
                                               {"parent", string("of an adapter")}},
                                              {}),
                                        {{"name", "support"}, {"package", "support@1"}});
  schemas["LoadLoraAdapterRequest"] = example(taken({{"lora_name", string()},
                                                     {"lora_path", string("under adapters_root")},
                                                     {"base_model_name", string()},
                                                     {"load_inplace", boolean("takes the place of one of this name")}},
                                                    {"lora_name", "lora_path"}),
                                              {{"lora_name", "polite"}, {"lora_path", "polite.gguf"}});
  schemas["UnloadLoraAdapterRequest"] =
      example(taken({{"lora_name", string()}}, {"lora_name"}), {{"lora_name", "polite"}});
}

}  // namespace tailor::openapi
