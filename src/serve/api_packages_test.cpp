// Packages of labels, tags and spans behind the API: real ones, with tiny models.

#include <gtest/gtest.h>

#include <cmath>

#include "fit/tag_answer.h"
#include "serve/test_api.h"
#include "serve/test_packages.h"

namespace tailor {
namespace {

using test::JsonAnswer;
using test::TestApi;

constexpr const char* kText = "Anna ☕ met 😀 Zoë in New York.";

class ApiPackages : public ::testing::Test {
 protected:
  std::filesystem::path at(const char* name) const { return dir_.path() / name; }
  void serve(const char* name, bool nearest_rows = true) {
    ModelLoadOptions load{.share = std::make_shared<ComputeShare>(1), .nearest_rows = nearest_rows};
    api_.models().put(serve_package(at(name), name, load).value());
  }
  Json chat(const char* model, const std::vector<std::pair<std::string, std::string>>& messages) {
    Json body{{"model", model}, {"messages", Json::array()}};
    for (const auto& [role, content] : messages) body["messages"].push_back({{"role", role}, {"content", content}});
    return body;
  }
  std::string content(const Json& body) {
    const JsonAnswer got = api_.post("/v1/chat/completions", body);
    EXPECT_EQ(got.status, 200) << got.json;
    return got.json["choices"][0]["message"]["content"].get<std::string>();
  }
  std::string wrong(const char* path, const Json& body) {
    const JsonAnswer got = api_.post(path, body);
    EXPECT_EQ(got.status, 400) << got.json;
    return got.json["error"]["param"].is_string() ? got.json["error"]["param"].get<std::string>() : "";
  }
  TestApi api_;
  const TemporaryDirectory dir_{"packages"};
};

TEST_F(ApiPackages, EntitiesStandWhereTheySay) {
  test::write_tag_package(at("tags"), {0, 9, 0, 0, 0}, 0);  // every word is a person
  serve("tags");
  const JsonAnswer got = api_.post("/v1/tag", {{"model", "tags"}, {"input", {kText, "", "x"}}});
  ASSERT_EQ(got.status, 200) << got.json;
  EXPECT_EQ(got.json["offsets"], "codepoints");
  ASSERT_EQ(got.json["data"].size(), 3u);
  EXPECT_TRUE(got.json["data"][1]["entities"].empty());
  const Json& entities = got.json["data"][0]["entities"];
  ASSERT_EQ(entities.size(), 9u) << entities;  // the full stop is a word too
  EXPECT_EQ(entities[0],
            (Json{{"label", "person"}, {"text", "Anna"}, {"start", 0}, {"end", 4}, {"score", entities[0]["score"]}}));
  EXPECT_NEAR(entities[0]["score"].get<double>(), 1 / (1 + 4 * std::exp(-9.0)), 1e-6);
  EXPECT_EQ(entities[4]["text"], "Zoë");
  EXPECT_EQ(entities[4]["start"], 13);
  EXPECT_EQ(entities[4]["end"], 16);
  EXPECT_FALSE(got.json["data"][0].contains("words"));
  EXPECT_GT(got.json["usage"]["prompt_tokens"].get<int>(), 9);
  EXPECT_TRUE(got.json["milliseconds"].is_number());

  const Json utf16 = api_.post("/v1/tag", {{"model", "tags"}, {"input", kText}, {"offsets", "utf16"}}).json;
  EXPECT_EQ(utf16["offsets"], "utf16");
  EXPECT_EQ(utf16["data"][0]["entities"][4]["start"], 14);  // the smiley is two units
  const Json utf8 =
      api_.post("/v1/tag", {{"model", "tags"}, {"input", kText}, {"offsets", "utf8"}}).json["data"][0]["entities"];
  for (const Json& entity : utf8) {
    const std::size_t start = entity["start"], end = entity["end"];
    EXPECT_EQ(entity["text"], std::string(kText).substr(start, end - start));
  }
}

TEST_F(ApiPackages, TagsAreThoseOfTheLibrary) {
  test::write_tag_package(at("tags"), {0, 0, 0, 0, 0}, 0.5f);
  serve("tags");
  std::string text = kText;
  for (int i = 0; i < 40; ++i) text += " and so on";  // several windows
  const JsonAnswer got = api_.post("/v1/tag", {{"model", "tags"}, {"input", text}, {"words", true}});
  ASSERT_EQ(got.status, 200) << got.json;
  const PackageManifest manifest = read_package(at("tags")).value();
  Tagger tagger = Tagger::load(at("tags"), manifest, {.threads = 1}).value();
  const std::vector<TaggedRow> rows{untagged_row(text)};
  const Json expected = tag_answer(rows[0], tagger.tag(rows, {}, CancelToken()).value()[0], manifest.labels, true);
  const Json& words = got.json["data"][0]["words"];
  ASSERT_EQ(words.size(), expected["tags"].size());
  for (std::size_t w = 0; w < words.size(); ++w) {
    EXPECT_EQ(words[w]["label"], expected["tags"][w]);
    EXPECT_EQ(words[w]["text"], expected["tokens"][w]);
    EXPECT_NEAR(words[w]["score"].get<double>(), expected["p"][w].get<double>(), 1e-5);
  }
  const Json& entities = got.json["data"][0]["entities"];
  ASSERT_EQ(entities.size(), expected["spans"].size());
  ASSERT_GT(entities.size(), 3u);
  for (std::size_t e = 0; e < entities.size(); ++e) {
    for (const char* field : {"label", "text", "start", "end"})
      EXPECT_EQ(entities[e][field], expected["spans"][e][field]);
  }
}

TEST_F(ApiPackages, TagsWithoutSpansAreToldWordByWord) {
  test::write_tag_package(at("pos"), {0, 2}, 0, false);
  serve("pos");
  const Json got = api_.post("/v1/tag", {{"model", "pos"}, {"input", "Dogs bark"}, {"words", false}}).json["data"][0];
  EXPECT_FALSE(got.contains("entities"));
  ASSERT_EQ(got["words"].size(), 2u);
  EXPECT_EQ(got["words"][1],
            (Json{{"label", "VERB"}, {"text", "bark"}, {"start", 5}, {"end", 9}, {"score", got["words"][1]["score"]}}));
  EXPECT_EQ(api_.get("/v1/models/pos").json["labels"], (Json{"NOUN", "VERB"}));
  EXPECT_EQ(Json::parse(content(chat("pos", {{"user", "Dogs bark"}}))), got["words"]);
}

TEST_F(ApiPackages, TagPackagesAreListedAndHoldConversations) {
  test::write_tag_package(at("tags"), {0, 0, 9, 0, 0}, 0);  // one person, from the first word to the last
  serve("tags");
  const Json model = api_.get("/v1/models/tags").json;
  EXPECT_EQ(model["capabilities"], Json({"tag"}));
  EXPECT_EQ(model["labels"], (Json{"person", "place"}));
  const Json body = chat("tags", {{"system", "Find names."}, {"user", "Anna ☕"}});
  const Json said = Json::parse(content(body));
  ASSERT_EQ(said.size(), 1u) << said;
  EXPECT_EQ(said[0]["text"], "Anna ☕");
  EXPECT_EQ(said[0]["end"], 6);
  EXPECT_GT(api_.post("/v1/chat/completions", body).json["usage"]["prompt_tokens"].get<int>(), 0);
  const auto events = api_.stream("/v1/chat/completions", body);
  EXPECT_EQ(events.at(0)["choices"][0]["delta"], (Json{{"role", "assistant"}, {"content", ""}}));
  EXPECT_EQ(Json::parse(events.at(1)["choices"][0]["delta"].value("content", "null")), said);
  EXPECT_EQ(events.back(), "[DONE]");
}

TEST_F(ApiPackages, WhatTagRefuses) {
  test::write_tag_package(at("tags"), {0, 9, 0, 0, 0}, 0);
  serve("tags");
  EXPECT_EQ(wrong("/v1/tag", {{"model", "tiny"}, {"input", "x"}}), "model");
  EXPECT_EQ(wrong("/v1/tag", {{"model", "tags"}}), "input");
  EXPECT_EQ(wrong("/v1/tag", {{"model", "tags"}, {"input", Json::array()}}), "input");
  EXPECT_EQ(wrong("/v1/tag", {{"model", "tags"}, {"input", 7}}), "input");
  EXPECT_EQ(wrong("/v1/tag", {{"model", "tags"}, {"input", "x"}, {"offsets", "bytes"}}), "offsets");
  EXPECT_EQ(wrong("/v1/tag", {{"model", "tags"}, {"input", "x"}, {"words", 1}}), "words");
  EXPECT_EQ(wrong("/v1/classify", {{"model", "tags"}, {"input", "x"}}), "model");
  EXPECT_EQ(wrong("/v1/extract", {{"model", "tags"}, {"question", "x"}, {"context", "y"}}), "model");
  EXPECT_EQ(wrong("/v1/completions", {{"model", "tags"}, {"prompt", "x"}}), "model");
  const std::string much((std::size_t{256} << 10) + 1, 'a');
  EXPECT_EQ(wrong("/v1/tag", {{"model", "tags"}, {"input", much}}), "input");
  EXPECT_EQ(wrong("/v1/chat/completions", chat("tags", {{"user", much}})), "messages");
  EXPECT_EQ(wrong("/v1/chat/completions", chat("tags", {{"system", "x"}})), "messages");
}

TEST_F(ApiPackages, AnswersStandInTheText) {
  test::write_span_package(at("spans"), 0, false);  // all pieces are equal: the first word
  serve("spans");
  const JsonAnswer got = api_.post(
      "/v1/extract", {{"model", "spans"}, {"question", "What?"}, {"context", " 😀 Köln"}, {"offsets", "utf16"}});
  ASSERT_EQ(got.status, 200) << got.json;
  EXPECT_EQ(got.json["data"][0],
            (Json{{"index", 0}, {"answer", "😀"}, {"start", 1}, {"end", 3}, {"score", got.json["data"][0]["score"]}}));
  EXPECT_NEAR(got.json["data"][0]["score"].get<double>(), 1.0 / 3, 1e-6);
  EXPECT_GT(got.json["usage"]["prompt_tokens"].get<int>(), 3);
  const Json one{{"question", "Who?"}, {"context", "Ada did."}};
  const Json several =
      api_.post("/v1/extract", {{"model", "spans"}, {"input", {one, {{"question", "x"}, {"context", "Zoë"}}}}}).json;
  ASSERT_EQ(several["data"].size(), 2u);
  EXPECT_EQ(several["offsets"], "codepoints");
  EXPECT_EQ(several["data"][0]["answer"], "Ada");
  EXPECT_EQ(several["data"][1]["end"], 3);
  EXPECT_EQ(api_.post("/v1/extract", {{"model", "spans"}, {"input", one}}).json["data"], Json({several["data"][0]}));
  EXPECT_EQ(api_.get("/v1/models/spans").json["capabilities"], Json({"extract"}));
  EXPECT_FALSE(api_.get("/v1/models/spans").json.contains("labels"));
}

TEST_F(ApiPackages, AnswersAreThoseOfTheLibrary) {
  test::write_span_package(at("spans"), 0.5f, true);
  serve("spans");
  const PackageManifest manifest = read_package(at("spans")).value();
  QuestionModel model = QuestionModel::load(at("spans"), manifest, {.threads = 1}).value();
  std::string context = kText;
  for (int i = 0; i < 30; ++i) context += " Later she went home.";
  const std::vector<QuestionRow> rows{{.question = "Whom?", .context = kText},
                                      {.question = "Where to?", .context = context}};
  const std::vector<SpanAnswer> expected = model.answer(rows, {}, CancelToken()).value();
  Json input = Json::array();
  for (const QuestionRow& row : rows) input.push_back({{"question", row.question}, {"context", row.context}});
  const Json got = api_.post("/v1/extract", {{"model", "spans"}, {"input", input}, {"offsets", "utf8"}}).json["data"];
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_NEAR(got[i]["score"].get<double>(), expected[i].p, 1e-5);
    if (expected[i].text.empty()) {
      EXPECT_EQ(got[i]["no_answer"], true);
      continue;
    }
    EXPECT_EQ(got[i]["answer"], expected[i].text);
    EXPECT_EQ(got[i]["start"], expected[i].begin);
    EXPECT_EQ(got[i]["end"], expected[i].end);
  }
}

TEST_F(ApiPackages, ATextWithoutAnAnswer) {
  test::write_span_package(at("spans"), 0, true);
  serve("spans");
  const Json got =
      api_.post("/v1/extract", {{"model", "spans"}, {"question", "What?"}, {"context", "   "}}).json["data"][0];
  EXPECT_EQ(got["no_answer"], true);
  for (const char* field : {"answer", "start", "end"}) EXPECT_TRUE(got[field].is_null()) << field;
}

TEST_F(ApiPackages, QuestionsInConversations) {
  test::write_span_package(at("spans"), 0, false);
  serve("spans");
  EXPECT_EQ(content(chat("spans", {{"system", "Oslo is in Norway."}, {"user", "Where is Oslo?"}})), "Oslo");
  EXPECT_EQ(content(chat("spans", {{"user", "Ada wrote it."}, {"assistant", "Thanks."}, {"user", "Who wrote it?"}})),
            "Ada");
  EXPECT_EQ(wrong("/v1/chat/completions", chat("spans", {{"user", "Where is Oslo?"}})), "messages");
}

TEST_F(ApiPackages, WhatExtractRefuses) {
  test::write_span_package(at("spans"), 0, false);
  serve("spans");
  EXPECT_EQ(wrong("/v1/extract", {{"model", "tiny"}, {"question", "x"}, {"context", "y"}}), "model");
  EXPECT_EQ(wrong("/v1/extract", {{"model", "spans"}, {"context", "y"}}), "question");
  EXPECT_EQ(wrong("/v1/extract", {{"model", "spans"}, {"question", "x"}}), "context");
  EXPECT_EQ(wrong("/v1/extract", {{"model", "spans"}, {"input", "x"}}), "input");
  EXPECT_EQ(wrong("/v1/extract", {{"model", "spans"}, {"input", Json::array()}}), "input");
  EXPECT_EQ(wrong("/v1/extract", {{"model", "spans"}, {"input", {{{"question", "x"}}}}}), "input[0].context");
  EXPECT_EQ(wrong("/v1/extract",
                  {{"model", "spans"}, {"question", "x"}, {"context", std::string(std::size_t{256} << 10, 'a')}}),
            "context");
  EXPECT_EQ(wrong("/v1/classify", {{"model", "spans"}, {"input", "x"}}), "model");
}

TEST_F(ApiPackages, TheNearestTrainingRows) {
  test::write_neighbours_package(at("rows"), true);
  serve("rows");
  EXPECT_EQ(api_.get("/v1/models/rows").json["capabilities"], (Json{"classify", "nearest"}));
  const JsonAnswer got =
      api_.post("/v1/classify", {{"model", "rows"}, {"input", {"How much is the flat?", "x"}}, {"nearest", 3}});
  ASSERT_EQ(got.status, 200) << got.json;
  const Json& nearest = got.json["data"][0]["nearest"];
  ASSERT_EQ(nearest.size(), 3u);
  EXPECT_EQ(nearest[0]["text"], "How much is the flat?");
  EXPECT_EQ(nearest[0]["label"], "price");
  EXPECT_NEAR(nearest[0]["similarity"].get<double>(), 1, 1e-4);
  EXPECT_GE(nearest[0]["similarity"], nearest[1]["similarity"]);
  EXPECT_GE(nearest[1]["similarity"], nearest[2]["similarity"]);
  EXPECT_EQ(got.json["data"][0]["label"], "price");
  EXPECT_EQ(got.json["data"][1]["nearest"].size(), 3u);
  EXPECT_EQ(
      api_.post("/v1/classify", {{"model", "rows"}, {"input", "x"}, {"nearest", 50}}).json["data"][0]["nearest"].size(),
      4u);  // all
  EXPECT_FALSE(api_.post("/v1/classify", {{"model", "rows"}, {"input", "x"}}).json["data"][0].contains("nearest"));
  EXPECT_EQ(wrong("/v1/classify", {{"model", "rows"}, {"input", "x"}, {"nearest", 51}}), "nearest");
}

TEST_F(ApiPackages, RowsAreShownWhereTheyAreHeldAndAllowed) {
  test::write_neighbours_package(at("rows"), true);
  test::write_neighbours_package(at("vectors"), false);  // as fit --no-texts makes it
  test::write_prompt_package(at("retrieved"), true);
  test::write_prompt_package(at("prompt"), false);
  serve("rows", false);
  for (const char* name : {"vectors", "retrieved", "prompt"}) serve(name);
  for (const char* name : {"rows", "vectors", "prompt"}) {
    EXPECT_EQ(api_.get(std::string("/v1/models/") + name).json["capabilities"], Json({"classify"})) << name;
    EXPECT_EQ(wrong("/v1/classify", {{"model", name}, {"input", "x"}, {"nearest", 1}}), "nearest") << name;
    EXPECT_EQ(api_.post("/v1/classify", {{"model", name}, {"input", "x"}, {"nearest", 0}}).status, 200) << name;
  }
  const Json got =
      api_.post("/v1/classify", {{"model", "retrieved"}, {"input", "Is Friday free for a visit?"}, {"nearest", 1}})
          .json;
  EXPECT_EQ(got["data"][0]["nearest"][0]["text"], "Is Friday free for a visit?");
  EXPECT_EQ(got["data"][0]["nearest"][0]["label"], "viewing");
}

TEST_F(ApiPackages, RowsThatDoNotBelongToTheVectorsAreRefused) {
  test::write_neighbours_package(at("rows"), true);
  const std::string rows = read_file(at("rows") / kRowsFile).value();
  write_file_atomic(at("rows") / kRowsFile, rows + rows).value();
  PackageManifest manifest = test::on_encoder("", test::row_labels());
  manifest.method = "neighbours";
  close_package(at("rows"), manifest, true).value();  // its hashes hold
  testing::expect_error(serve_package(at("rows"), "rows", {.share = std::make_shared<ComputeShare>(1)}),
                        ErrorCode::kCorruptData, "8 rows, 4 vectors");
}

TEST_F(ApiPackages, TheLabelAloneIsTheLikeliestOne) {
  test::write_prompt_package(at("prompt"), false);
  test::write_prompt_package(at("retrieved"), true);
  Json texts = Json::array();
  for (int i = 0; i < 12; ++i)
    texts.push_back("Message number " + std::to_string(i * i) + " about the flat, the price and the heating");
  for (const char* name : {"prompt", "retrieved"}) {
    serve(name);
    const Json whole = api_.post("/v1/classify", {{"model", name}, {"input", texts}}).json["data"];
    const Json alone =
        api_.post("/v1/classify", {{"model", name}, {"input", texts}, {"label_only", true}}).json["data"];
    for (std::size_t i = 0; i < texts.size(); ++i) {
      EXPECT_EQ(alone[i], (Json{{"index", i}, {"label", whole[i]["label"]}}));
      EXPECT_EQ(content(chat(name, {{"user", texts[i].get<std::string>()}})), whole[i]["label"]);
    }
  }
}

TEST_F(ApiPackages, TheLabelAloneIsLeftOpenToo) {
  test::write_prompt_package(at("prompt"), false);
  PackageManifest manifest = read_package(at("prompt")).value();
  manifest.min_confidence = 1.0;
  close_package(at("prompt"), manifest, false).value();
  serve("prompt");
  const Json got =
      api_.post("/v1/classify", {{"model", "prompt"}, {"input", "x"}, {"label_only", true}}).json["data"][0];
  EXPECT_EQ(got, (Json{{"index", 0}, {"label", nullptr}, {"abstained", true}}));
  EXPECT_EQ(content(chat("prompt", {{"user", "x"}})), "");
}

TEST_F(ApiPackages, NumbersAndSetsHaveNoOneLabel) {
  PackageManifest manifest = test::on_encoder(kServeTunedTargets, {"price"});
  manifest.target.kind = PackageTarget::Kind::kNumber;
  manifest.target.mean = 2;
  test::write_encoder_package(at("number"), manifest, {1}, 0);
  serve("number");
  EXPECT_NEAR(api_.post("/v1/classify", {{"model", "number"}, {"input", "x"}}).json["data"][0]["value"].get<double>(),
              3, 1e-6);
  EXPECT_EQ(wrong("/v1/classify", {{"model", "number"}, {"input", "x"}, {"label_only", true}}), "label_only");
}

TEST_F(ApiPackages, PairsOfTexts) {
  PackageManifest manifest = test::on_encoder(kServeTunedEncoder, {"same", "other"});
  manifest.text_template = std::string("{a}") + kPairSeparator + "{b}";
  test::write_encoder_package(at("pairs"), manifest, {0, 0}, 0.5f);
  serve("pairs");
  const auto pair = [](const char* text, const char* other) { return Json{{"text", text}, {"text_pair", other}}; };
  const Json one = api_.post("/v1/classify", {{"model", "pairs"}, {"input", pair("one text", "another")}}).json["data"];
  ASSERT_EQ(one.size(), 1u);
  auto classifier = load_package(at("pairs"), {.threads = 1}).value().classifier;
  const std::vector<std::string> texts{std::string("one text") + kPairSeparator + "another"};
  EXPECT_NEAR(one[0]["probabilities"]["same"].get<double>(),
              classifier->probabilities(texts, {}, CancelToken()).value().row(0)[0], 1e-5);
  const Json two = api_.post("/v1/classify", {{"model", "pairs"},
                                              {"input", {pair("one text", "another"), pair("another", "one text")}}})
                       .json["data"];
  EXPECT_NE(two[1]["confidence"], two[0]["confidence"]);
  EXPECT_EQ(wrong("/v1/classify", {{"model", "pairs"}, {"input", "one text"}}), "input");
  EXPECT_EQ(wrong("/v1/classify", {{"model", "pairs"}, {"input", {{{"text", "a"}}}}}), "input[0].text_pair");
  EXPECT_EQ(wrong("/v1/classify", {{"model", "pairs"}, {"input", Json::array()}}), "input");
  EXPECT_EQ(wrong("/v1/classify", {{"model", "pairs"}}), "input");
  EXPECT_EQ(wrong("/v1/chat/completions", chat("pairs", {{"user", "x"}})), "model");
}

TEST_F(ApiPackages, DamagedTagPackagesAreRefused) {
  PackageManifest manifest = test::on_encoder(kServeTags, {"O", "person", "I-person"});
  manifest.target.kind = PackageTarget::Kind::kTags;
  test::write_encoder_package(at("tags"), manifest, {0, 0, 0}, 0);
  testing::expect_error(serve_package(at("tags"), "tags", {.share = std::make_shared<ComputeShare>(1)}),
                        ErrorCode::kCorruptData, "its labels are not O");
}

}  // namespace
}  // namespace tailor
