// Models, vectors, labels and tokens as clients see them.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "serve/test_api.h"

namespace tailor {
namespace {

using test::JsonAnswer;
using test::TestApi;

TEST(ApiModels, ListAndOne) {
  TestApi api;
  const JsonAnswer list = api.get("/v1/models");
  ASSERT_EQ(list.status, 200);
  EXPECT_EQ(list.json["object"], "list");
  ASSERT_EQ(list.json["data"].size(), 1u);
  const Json& model = list.json["data"][0];
  EXPECT_EQ(model["id"], "tiny");
  EXPECT_EQ(model["object"], "model");
  EXPECT_TRUE(model["parent"].is_null());
  EXPECT_EQ(model["max_model_len"], 2048);
  // As llama.cpp has it, and more.
  const Json& meta = model["meta"];
  EXPECT_EQ(meta["vocab_type"], 2) << "LLAMA_VOCAB_TYPE_BPE";
  EXPECT_EQ(meta["n_vocab"], 49152);
  EXPECT_EQ(meta["vocab_size"], 49152);
  EXPECT_EQ(meta["n_ctx_train"], 2048);
  EXPECT_EQ(meta["n_embd"], 64);
  EXPECT_GT(meta["n_params"], 3'000'000);
  EXPECT_GT(meta["size"], 12'000'000);
  EXPECT_EQ(api.get("/v1/models/tiny").json, model);
  EXPECT_EQ(api.get("/v1/models/other").status, 404);
  EXPECT_EQ(api.get("/v1/models/other").json["error"]["code"], "model_not_found");
  EXPECT_EQ(api.get("/version").json["version"], TAILOR_VERSION);
  EXPECT_EQ(api.get("/health").json["status"], "ok");
}

TEST(ApiModels, NamesMayHoldSlashes) {
  TestApi api;
  ModelLoadOptions load{.cache_bytes = std::uint64_t{64} << 20, .share = std::make_shared<ComputeShare>(1)};
  api.models().put(serve_base_model(testing::tiny_llama().string(), "org/tiny", load).value());
  const auto remove = [&](const std::string& path) {
    const test::Answer answer = api.client().ask("DELETE " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n");
    return JsonAnswer{answer.status, answer.headers, Json::parse(answer.body, nullptr, false)};
  };
  for (const std::string name : {"org/tiny", "org%2Ftiny", "org%2ftiny"}) {
    EXPECT_EQ(api.get("/v1/models/" + name).json["id"], "org/tiny") << name;
    const JsonAnswer refused = remove("/v1/models/" + name);
    EXPECT_EQ(refused.status, 400) << refused.json;
    EXPECT_EQ(refused.json["error"]["code"], "model_not_fine_tuned") << "it was found";
  }
  EXPECT_EQ(api.get("/v1/models/org/tiny/").status, 200);
  EXPECT_EQ(api.get("/v1/models/org/other").json["error"]["code"], "model_not_found");
  EXPECT_EQ(api.get("/v1/models/org").json["error"]["code"], "model_not_found");
  EXPECT_EQ(api.get("/v1/models/org%2F..%2Fx").status, 400);
  EXPECT_EQ(api.get("/v1/files/a%2Fb").status, 400) << "elsewhere no slash is encoded";
  EXPECT_EQ(api.get("/v1%2Fmodels/tiny").status, 400);
}

TEST(ApiModels, TheListIsWrittenOnceForEachChange) {
  TestApi api;
  const ModelViewer all{.key_id = "", .sees_all = true};
  const auto before = api.models().listing(all);
  EXPECT_EQ(api.models().listing(all), before);
  TemporaryDirectory dir("api");
  testing::write_tiny_adapter(dir.path() / "adapter.gguf");
  api.models().put(serve_adapter(*api.models().find("tiny"), dir.path(), "support").value());
  EXPECT_NE(api.models().listing(all), before);
  EXPECT_EQ(api.get("/v1/models").json["data"].size(), 2u);
  EXPECT_EQ(api.get("/v1/models").json["data"][1], api.get("/v1/models/support").json);
  api.models().remove("support");
  EXPECT_EQ(*api.models().listing(all), *before);
  EXPECT_EQ(api.get("/v1/models").json["data"].size(), 1u);
}

TEST(ApiModels, ListsHoldWhatTheirReaderSees) {
  TestApi api;
  TemporaryDirectory dir("api");
  testing::write_tiny_adapter(dir.path() / "adapter.gguf");
  for (const char* owner : {"a", "b"}) {
    auto model = serve_adapter(*api.models().find("tiny"), dir.path(), std::string("of-") + owner).value();
    model->owner = owner;
    api.models().put(std::move(model));
  }
  const auto names = [&](const ModelViewer& viewer) {
    std::string out;
    const Json list = Json::parse(*api.models().listing(viewer));
    for (const Json& model : list["data"]) out += model["id"].get<std::string>() + " ";
    return out;
  };
  EXPECT_EQ(names({"a", false}), "tiny of-a ");
  EXPECT_EQ(names({"b", false}), "tiny of-b ");
  EXPECT_EQ(names({"c", false}), "tiny ");
  EXPECT_EQ(names({"c", true}), "tiny of-a of-b ");
  EXPECT_EQ(api.models().listing({"c", false}), api.models().listing({"d", false})) << "one text for both";
  EXPECT_EQ(api.models().find("of-a", {"b", false}), nullptr);
  EXPECT_EQ(api.models().find("of-a", {"a", false}), api.models().find("of-a"));
  EXPECT_TRUE(api.models().remove("tiny"));
  EXPECT_EQ(api.models().find("", {"b", false})->id, "of-b") << "the first that it sees";
  EXPECT_EQ(api.models().find("", {"c", false}), nullptr);
}

TEST(ApiModels, AdaptersAreModelsWithAParent) {
  TemporaryDirectory dir("api");
  testing::write_tiny_adapter(dir.path() / "adapter.gguf", 64, "", 0.3);
  TestApi api;
  api.models().put(serve_adapter(*api.models().find("tiny"), dir.path(), "support").value());
  const JsonAnswer model = api.get("/v1/models/support");
  EXPECT_EQ(model.json["parent"], "tiny");
  const Json ask{{"prompt", "Where is my parcel"}, {"max_tokens", 8}, {"temperature", 0}};
  Json with = ask;
  with["model"] = "support";
  const JsonAnswer base = api.post("/v1/completions", ask), adapted = api.post("/v1/completions", with);
  EXPECT_EQ(adapted.json["model"], "support");
  EXPECT_NE(adapted.json["choices"][0]["text"], base.json["choices"][0]["text"]);
  EXPECT_NE(adapted.json["system_fingerprint"], base.json["system_fingerprint"]);
  EXPECT_TRUE(api.models().remove("support"));
  EXPECT_FALSE(api.models().remove("support"));
  EXPECT_EQ(api.post("/v1/completions", with).status, 404);
  testing::expect_error(serve_adapter(*api.models().find("tiny"), dir.path() / "none", "x"), ErrorCode::kNotFound,
                        "none");
}

TEST(ApiModels, AModelIsReplacedUnderItsRequests) {
  TestApi api;
  auto running = api.client();
  running.send(TestApi::post_text(
      "/v1/completions",
      dump_json({{"model", "tiny"}, {"prompt", "x"}, {"stream", true}, {"max_tokens", 400}, {"ignore_eos", true}})));
  ASSERT_TRUE(running.read_through("\"text\":").has_value());
  ModelLoadOptions load;
  load.share = std::make_shared<ComputeShare>(1);
  load.cache_bytes = std::uint64_t{64} << 20;
  const std::uint64_t version = api.models().version();
  api.models().put(serve_base_model(testing::tiny_llama().string(), "tiny", load).value());
  EXPECT_GT(api.models().version(), version);
  EXPECT_EQ(api.get("/v1/models").json["data"].size(), 1u);
  EXPECT_EQ(api.post("/v1/completions", {{"model", "tiny"}, {"prompt", "y"}, {"max_tokens", 2}}).status, 200);
  ASSERT_TRUE(running.read_through("\"finish_reason\":\"length\"").has_value());
  EXPECT_TRUE(running.read_through("data: [DONE]").has_value());
}

TEST(ApiModels, EmbeddingsAsNumbersAndAsBase64) {
  TestApi api;
  const JsonAnswer floats = api.post("/v1/embeddings", {{"model", "tiny"}, {"input", {"one text", "another"}}});
  ASSERT_EQ(floats.status, 200) << floats.json;
  ASSERT_EQ(floats.json["data"].size(), 2u);
  EXPECT_EQ(floats.json["data"][1]["index"], 1);
  const auto vector = floats.json["data"][0]["embedding"].get<std::vector<float>>();
  ASSERT_EQ(vector.size(), 64u);
  float length = 0;
  for (const float v : vector) length += v * v;
  EXPECT_NEAR(length, 1, 1e-4);
  EXPECT_GT(floats.json["usage"]["prompt_tokens"].get<int>(), 2);
  const JsonAnswer coded = api.post("/v1/embeddings", {{"input", "one text"}, {"encoding_format", "base64"}});
  const std::string text = coded.json["data"][0]["embedding"];
  ASSERT_EQ(text.size(), (64u * 4 + 2) / 3 * 4);
  const std::string letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  std::uint32_t held = 0;
  int bits = 0;
  for (const char c : text) {
    if (c == '=') break;
    held = held << 6 | static_cast<std::uint32_t>(letters.find(c));
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes += static_cast<char>(held >> bits & 255);
  }
  std::vector<float> decoded(64);
  ASSERT_EQ(bytes.size(), 256u);
  std::memcpy(decoded.data(), bytes.data(), 256);
  for (std::size_t i = 0; i < 64; ++i) EXPECT_NEAR(decoded[i], vector[i], 1e-4);
  const JsonAnswer shorter = api.post("/v1/embeddings", {{"input", "one text"}, {"dimensions", 8}});
  const auto eight = shorter.json["data"][0]["embedding"].get<std::vector<float>>();
  ASSERT_EQ(eight.size(), 8u);
  EXPECT_NEAR(eight[0] / eight[1], vector[0] / vector[1], 1e-2);
  EXPECT_EQ(api.post("/v1/embeddings", {{"input", {{400, 401}, {402}}}}).json["data"].size(), 2u);
  EXPECT_EQ(api.post("/v1/embeddings", {{"input", Json::array()}}).json["error"]["param"], "input");
  EXPECT_EQ(api.post("/v1/embeddings", Json::object()).json["error"]["param"], "input");
  EXPECT_EQ(api.post("/v1/embeddings", {{"input", "x"}, {"dimensions", 65}}).json["error"]["param"], "dimensions");
  EXPECT_EQ(api.post("/v1/embeddings", {{"input", "x"}, {"encoding_format", "hex"}}).json["error"]["param"],
            "encoding_format");
}

TEST(ApiModels, TextsThatAreTooLongForAVectorAreRefusedUnlessTheyMayBeCut) {
  TestApi api;
  std::string text;
  for (int i = 0; i < 3000; ++i) text += " word";
  const JsonAnswer refused = api.post("/v1/embeddings", {{"input", {"short", text}}});
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(refused.json["error"]["param"], "input");
  EXPECT_EQ(refused.json["error"]["code"], "context_length_exceeded");
  const std::string told = refused.json["error"]["message"];
  EXPECT_NE(told.find("the model reads 512 tokens, and text 2 of 'input' has "), std::string::npos) << told;
  for (const int cut : {-1, 512}) {
    const JsonAnswer got = api.post("/v1/embeddings", {{"input", {"short", text}}, {"truncate_prompt_tokens", cut}});
    ASSERT_EQ(got.status, 200) << got.json;
    EXPECT_GT(got.json["usage"]["prompt_tokens"], 512);
    EXPECT_LT(got.json["usage"]["prompt_tokens"], 520);
  }
  for (const int wrong : {0, 100, 513, -2})
    EXPECT_EQ(api.post("/v1/embeddings", {{"input", text}, {"truncate_prompt_tokens", wrong}}).json["error"]["param"],
              "truncate_prompt_tokens");
  EXPECT_EQ(api.post("/v1/rerank", {{"query", "x"}, {"documents", {text}}}).status, 200);
}

TEST(ApiModels, RerankOrdersDocuments) {
  TestApi api;
  const JsonAnswer got = api.post("/v1/rerank", {{"query", "a red house"},
                                                 {"documents", {"zebra", "a red house", "green"}},
                                                 {"top_n", 2},
                                                 {"return_documents", true}});
  ASSERT_EQ(got.status, 200) << got.json;
  ASSERT_EQ(got.json["results"].size(), 2u);
  EXPECT_EQ(got.json["results"][0]["index"], 1);
  EXPECT_NEAR(got.json["results"][0]["relevance_score"].get<double>(), 1, 1e-3);
  EXPECT_EQ(got.json["results"][0]["document"]["text"], "a red house");
  EXPECT_EQ(api.post("/rerank", {{"query", "x"}, {"documents", {{{"text", "y"}}}}}).json["results"].size(), 1u);
  EXPECT_EQ(api.post("/v1/rerank", {{"query", "x"}}).json["error"]["param"], "documents");
}

/// Says "long" of texts with more than five letters.
class ByLength final : public Classifier {
 public:
  Result<Matrix> probabilities(std::span<const std::string> texts, const ProgressFn&, const CancelToken&) override {
    Matrix out(texts.size(), 2);
    for (std::size_t i = 0; i < texts.size(); ++i) {
      out.row(i)[0] = texts[i].size() > 5 ? 0.9f : 0.2f;
      out.row(i)[1] = 1 - out.row(i)[0];
    }
    return out;
  }
};

void add_labels(TestApi& api, PackageManifest manifest = {}) {
  auto model = std::make_unique<ServedModel>();
  model->id = "labels";
  manifest.labels = {"long", "short"};
  model->labels =
      LabelBackend::make(std::move(manifest), std::make_unique<ByLength>(), true, std::make_shared<ComputeShare>(1));
  api.models().put(std::move(model));
}

TEST(ApiModels, LabelPackagesClassify) {
  TestApi api;
  add_labels(api);
  const JsonAnswer got = api.post("/v1/classify", {{"model", "labels"}, {"input", {"a longer text", "tiny"}}});
  ASSERT_EQ(got.status, 200) << got.json;
  EXPECT_EQ(got.json["data"][0]["label"], "long");
  EXPECT_NEAR(got.json["data"][0]["confidence"].get<double>(), 0.9, 1e-6);
  EXPECT_NEAR(got.json["data"][1]["probabilities"]["short"].get<double>(), 0.8, 1e-6);
  EXPECT_TRUE(got.json["milliseconds"].is_number());
  EXPECT_FALSE(api.post("/v1/classify", {{"model", "labels"}, {"input", "x"}, {"probabilities", false}})
                   .json["data"][0]
                   .contains("probabilities"));
  EXPECT_EQ(api.post("/v1/classify", {{"model", "tiny"}, {"input", "x"}}).json["error"]["code"], "model_not_supported");
  EXPECT_EQ(api.post("/v1/classify", {{"model", "labels"}}).json["error"]["param"], "input");
  EXPECT_EQ(api.post("/v1/classify", {{"model", "labels"}, {"input", {1}}}).json["error"]["param"], "input");
  EXPECT_EQ(api.post("/v1/completions", {{"model", "labels"}, {"prompt", "x"}}).json["error"]["param"], "model");
  EXPECT_EQ(api.get("/v1/models/labels").json["labels"], (Json{"long", "short"}));
}

TEST(ApiModels, LabelPackagesAnswerChatsWithTheLabel) {
  TestApi api;
  add_labels(api);
  const Json body{
      {"model", "labels"},
      {"messages", {{{"role", "system"}, {"content", "x"}}, {{"role", "user"}, {"content", "a longer text"}}}}};
  const JsonAnswer got = api.post("/v1/chat/completions", body);
  ASSERT_EQ(got.status, 200) << got.json;
  EXPECT_EQ(got.json["choices"][0]["message"]["content"], "long");
  EXPECT_EQ(got.json["choices"][0]["finish_reason"], "stop");
  const auto events = api.stream("/v1/chat/completions", body);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0]["choices"][0]["delta"], (Json{{"role", "assistant"}, {"content", ""}}));
  EXPECT_EQ(events[1]["choices"][0]["delta"], (Json{{"content", "long"}}));
  EXPECT_EQ(events[2]["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(events[3], "[DONE]");
  Json nobody = body;
  nobody["messages"].erase(1);
  EXPECT_EQ(api.post("/v1/chat/completions", nobody).json["error"]["param"], "messages");
}

TEST(ApiModels, APackageRefusesFormsThatItCannotKeepTo) {
  TestApi api;
  add_labels(api);
  const Json tool{{"type", "function"}, {"function", {{"name", "f"}, {"parameters", {{"type", "object"}}}}}};
  const auto ask = [&](const Json& more) {
    Json body{{"model", "labels"}, {"messages", {{{"role", "user"}, {"content", "a longer text"}}}}};
    body.update(more);
    return api.post("/v1/chat/completions", body);
  };
  for (const auto& [param, more] : std::vector<std::pair<std::string, Json>>{
           {"response_format", {{"response_format", {{"type", "json_object"}}}}},
           {"response_format.json_schema.schema",
            {{"response_format",
              {{"type", "json_schema"}, {"json_schema", {{"name", "x"}, {"schema", {{"type", "object"}}}}}}}}},
           {"guided_regex", {{"guided_regex", "a+"}}},
           {"n", {{"n", 3}}},
           {"stream_options", {{"stream_options", {{"include_usage", true}}}}},
           {"tool_choice", {{"tools", {tool}}, {"tool_choice", "required"}}}}) {
    const JsonAnswer refused = ask(more);
    EXPECT_EQ(refused.status, 400) << more;
    EXPECT_EQ(refused.json["error"]["param"], param) << refused.json;
  }
  const JsonAnswer free = ask({{"tools", {tool}}, {"response_format", {{"type", "text"}}}, {"n", 1}});
  ASSERT_EQ(free.status, 200) << free.json;
  EXPECT_EQ(*free.headers.find("X-Ignored-Params"), "tools");
}

TEST(ApiModels, OpenAnswersAndSetsOfLabels) {
  TestApi api;
  PackageManifest manifest;
  manifest.min_confidence = 0.85;
  add_labels(api, manifest);
  const JsonAnswer open = api.post("/v1/classify", {{"model", "labels"}, {"input", {"a longer text", "tiny"}}});
  EXPECT_EQ(open.json["data"][0]["label"], "long");
  EXPECT_TRUE(open.json["data"][1]["label"].is_null());
  EXPECT_EQ(open.json["data"][1]["abstained"], true);
  manifest.target.kind = PackageTarget::Kind::kLabelSet;
  manifest.target.threshold = 0.15;
  add_labels(api, manifest);
  const JsonAnswer set = api.post("/v1/classify", {{"model", "labels"}, {"input", {"a longer text", "tiny"}}});
  EXPECT_EQ(set.json["data"][0]["labels"], Json({"long"}));
  EXPECT_EQ(set.json["data"][1]["labels"], Json({"long", "short"}));
}

TEST(ApiModels, TokensThereAndBack) {
  TestApi api;
  const JsonAnswer tokens = api.post("/tokenize", {{"content", "Hello <|im_end|> world"}, {"with_pieces", true}});
  ASSERT_EQ(tokens.status, 200) << tokens.json;
  EXPECT_EQ(tokens.json["count"], tokens.json["tokens"].size());
  Json ids = Json::array();
  std::string joined;
  for (const Json& t : tokens.json["tokens"]) {
    ids.push_back(t["id"]);
    joined += t["piece"].get<std::string>();
  }
  EXPECT_EQ(joined, "Hello <|im_end|> world");
  EXPECT_EQ(api.post("/detokenize", {{"tokens", ids}}).json["content"], "Hello <|im_end|> world");
  EXPECT_GT(api.post("/tokenize", {{"content", "Hello <|im_end|> world"}, {"parse_special", false}}).json["count"],
            tokens.json["count"]);
  const JsonAnswer shown =
      api.post("/apply-template", {{"messages", {{{"role", "user"}, {"content", "Hi <|im_end|>"}}}}});
  EXPECT_NE(shown.json["prompt"].get<std::string>().find("<|im_start|>user\nHi"), std::string::npos);
  EXPECT_EQ(api.post("/tokenize", {{"messages", {{{"role", "user"}, {"content", "Hi <|im_end|>"}}}}}).json["count"],
            shown.json["count"]);
  const Json info = api.get("/tokenizer_info").json;
  EXPECT_EQ(info["eos_token"], "<|im_end|>");
  EXPECT_EQ(info["max_model_len"], 2048);
  EXPECT_EQ(api.get("/tokenizer_info?model=tiny").json, info);
  EXPECT_EQ(api.get("/tokenizer_info?model=other").status, 404);
  EXPECT_EQ(api.post("/tokenize", Json::object()).json["error"]["param"], "prompt");
  EXPECT_EQ(api.post("/detokenize", {{"tokens", {-1}}}).json["error"]["param"], "tokens");
}

}  // namespace
}  // namespace tailor
