/// `tailor tune --task token-classification`: words in, tags out; what is served answers as what was trained.

#include "core/json.h"
#include "model/test_encoder_family.h"
#include "tests/recipes/cli.h"

namespace tailor::test {
namespace {

namespace fs = std::filesystem;

class TuneTags : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(program().parent_path() / "tailor-tune")) GTEST_SKIP() << "this build has no tailor-tune";
    const char* names[4] = {"Anna", "Boris", "Clara", "Deborah"};
    const char* places[4] = {"Paris", "New York", "Oslo", "Rio Grande"};
    std::string words, texts, columns;
    for (int i = 0; i < 96; ++i) {
      const std::string name = names[i % 4], place = places[(i / 4) % 4], day = std::to_string(i);
      const std::string text = name + " went to " + place + " on day " + day + (i % 3 == 0 ? ", she says" : "");
      Json tokens{name, "went", "to"}, tags{"B-person", "O", "O"};
      columns += name + "\tI-person\nwent\tO\nto\tO\n";  // IOB1
      for (std::size_t from = 0, part = 0; from <= place.size(); ++part) {
        const std::size_t to = std::min(place.find(' ', from), place.size());
        tokens.push_back(place.substr(from, to - from));
        tags.push_back(part == 0 ? "B-place" : "I-place");
        columns += place.substr(from, to - from) + "\tI-place\n";
        from = to + 1;
      }
      for (const char* word : {"on", "day"}) {
        tokens.push_back(word);
        tags.push_back("O");
        columns += std::string(word) + "\tO\n";
      }
      tokens.push_back(day);
      tags.push_back("O");
      columns += day + "\tO\n\n";
      words += dump_json(Json{{"tokens", tokens}, {"tags", tags}}) + "\n";
      const std::size_t at = name.size() + 9;
      texts += dump_json(Json{
                   {"text", text},
                   {"spans", Json::array({Json{{"start", 0}, {"end", name.size()}, {"label", "person"}},
                                          Json{{"start", at}, {"end", at + place.size()}, {"label", "place"}}})}}) +
               "\n";
    }
    write_file_atomic(dir_.path() / "words.jsonl", words).value();
    write_file_atomic(dir_.path() / "texts.jsonl", texts).value();
    write_file_atomic(dir_.path() / "words.conll", columns).value();
  }
  Outcome tune(const std::string& data, const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> arguments{
        "tune",  (dir_.path() / data).string(), "--task", "token-classification", "--quiet",
        "--out", (dir_.path() / out).string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  Json result(const std::string& out) { return read_json(dir_.path() / out / "result.json").value(); }
  std::vector<Json> predict(const std::string& data, const std::string& out) {
    const fs::path to = dir_.path() / (out + ".jsonl");
    const Outcome p = run({"predict", (dir_.path() / out / "package").string(), "--input",
                           (dir_.path() / data).string(), "--output", to.string()});
    EXPECT_EQ(p.code, 0) << p.err;
    EXPECT_TRUE(contains(p.out, "spans: F1")) << p.out;
    return read_jsonl(to).value();
  }
  const TemporaryDirectory dir_;
};

TEST_F(TuneTags, WordsAreServedAsTrained) {
  const Outcome r = tune("words.jsonl", "words", {"--method", "full", "--max-steps", "30", "--batch-size", "16"});
  ASSERT_EQ(r.code, 0) << r.err;
  const Json result = this->result("words");
  EXPECT_EQ(result.at("data").at("labels"), Json({"O", "B-person", "I-person", "B-place", "I-place"}));
  EXPECT_EQ(result.at("metric"), "entity_f1");
  EXPECT_GT(result.at("test").at("metrics").at("f1").at("value").get<double>(), 0.9);
  EXPECT_TRUE(result.at("test").at("by_type").contains("place"));
  EXPECT_EQ(result.at("served").at("same_tags"), result.at("served").at("words"));
  const std::vector<Json> answers = predict("words.jsonl", "words");
  for (const Json& row : read_jsonl(dir_.path() / "words" / "test_predictions.jsonl").value()) {
    const Json& served = answers[row.at("line").get<std::size_t>() - 1];
    EXPECT_EQ(row.at("tags"), served.at("tags"));
    EXPECT_EQ(row.at("expected"), served.at("expected"));
  }
  const std::string package = (dir_.path() / "words" / "package").string();
  const Outcome one = run({"predict", package, "Boris went to New York on day 5", "--json"});
  const Json answer = Json::parse(one.out);
  ASSERT_EQ(answer.at("spans").size(), 2u) << one.out;
  EXPECT_EQ(answer.at("spans")[1].at("text"), "New York");
  EXPECT_EQ(answer.at("spans")[1].at("start"), 14);
  EXPECT_EQ(answer.at("spans")[1].at("end"), 22);
  EXPECT_TRUE(contains(run({"predict", package, "Anna went to Oslo"}).out, "place"));
  EXPECT_TRUE(fs::exists(dir_.path() / "words" / "report.html"));
}

TEST_F(TuneTags, TextsWithSpansAndColumnsAreReadToo) {
  const Outcome texts = tune("texts.jsonl", "texts", {"--method", "lora", "--max-steps", "40", "--batch-size", "16"});
  ASSERT_EQ(texts.code, 0) << texts.err;
  EXPECT_EQ(result("texts").at("served").at("same_tags"), result("texts").at("served").at("words"));
  EXPECT_GT(result("texts").at("test").at("metrics").at("f1").at("value").get<double>(), 0.8);
  const Outcome columns = tune("words.conll", "columns", {"--method", "adapter-pfeiffer", "--max-steps", "6"});
  ASSERT_EQ(columns.code, 0) << columns.err;
  EXPECT_EQ(result("columns").at("data").at("labels"), Json({"O", "B-person", "I-person", "B-place", "I-place"}));
  EXPECT_EQ(result("columns").at("served").at("same_tags"), result("columns").at("served").at("words"));
}

class TuneTagsMethods : public TuneTags, public ::testing::WithParamInterface<const char*> {};

TEST_P(TuneTagsMethods, AreServedAsTrained) {
  const Outcome r = tune("words.jsonl", "run", {"--method", GetParam(), "--max-steps", "4"});
  ASSERT_EQ(r.code, 0) << r.err;
  const Json served = result("run").at("served");
  EXPECT_GE(served.at("same_tags").get<double>(), 0.995 * served.at("words").get<double>());
}

INSTANTIATE_TEST_SUITE_P(Methods, TuneTagsMethods,
                         ::testing::Values("head", "upper-layers", "bitfit", "layernorm", "dora", "pissa", "ia3",
                                           "adapter-houlsby", "adapter-parallel"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_F(TuneTags, ALongTextIsAnsweredToItsEnd) {
  std::string rows;
  for (int i = 0; i < 40; ++i) {
    Json tokens = Json::array(), tags = Json::array();
    for (int w = 0; w < (i < 3 ? 400 : 12); ++w) {
      tokens.push_back((w + i) % 5 == 0 ? "Oslo" : "w" + std::to_string(i));
      tags.push_back((w + i) % 5 == 0 ? "B-place" : "O");
    }
    rows += dump_json(Json{{"tokens", tokens}, {"tags", tags}}) + "\n";
  }
  write_file_atomic(dir_.path() / "long.jsonl", rows).value();
  const Outcome r = tune("words.jsonl", "long",
                         {"--test", (dir_.path() / "long.jsonl").string(), "--method", "head", "--max-steps", "3"});
  ASSERT_EQ(r.code, 0) << r.err;
  const Json result = this->result("long");
  EXPECT_EQ(result.at("test").at("words"), 3 * 400 + 37 * 12);
  // After three steps many words stand between two tags.
  EXPECT_GE(result.at("served").at("same_tags").get<double>(), 0.995 * result.at("served").at("words").get<double>());
}

TEST_F(TuneTags, PartsOfSpeechAreTagsWithoutSpans) {
  std::string rows;
  for (int i = 0; i < 40; ++i)
    rows +=
        dump_json(Json{{"tokens", {"dogs", std::to_string(i), "bark"}}, {"pos_tags", {"NOUN", "NUM", "VERB"}}}) + "\n";
  write_file_atomic(dir_.path() / "pos.jsonl", rows).value();
  const Outcome r = tune("pos.jsonl", "pos", {"--method", "full", "--max-steps", "4"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(result("pos").at("metric"), "accuracy");
  EXPECT_FALSE(result("pos").at("test").at("metrics").contains("f1"));
  const Outcome wrong = tune("pos.jsonl", "wrong", {"--metric", "entity_f1"});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_TRUE(contains(wrong.err, "entity_f1 needs tags that mark spans")) << wrong.err;
}

TEST_F(TuneTags, SayWhatIsWrong) {
  const auto refused = [&](const std::string& data, std::vector<std::string> more, const std::string& part) {
    const Outcome r = tune(data, "wrong", more);
    EXPECT_EQ(r.code, 2) << part;
    EXPECT_TRUE(contains(r.err, part)) << r.err;
  };
  refused("words.jsonl", {"--method", "contrastive"}, "is for one label a text");
  refused("words.jsonl", {"--model", "smollm2-135m-instruct"}, "for encoders");
  refused("words.jsonl", {"--metric", "micro_f1"}, "--metric micro_f1");
  refused("words.jsonl", {"--label", "ner"}, "it has no tags");
  refused("words.jsonl", {"--text", "sentence"}, "it has no \"sentence\"");
  write_file_atomic(dir_.path() / "other.jsonl", R"({"tokens": ["x"], "tags": ["B-plaice"]})").value();
  refused("words.jsonl", {"--test", (dir_.path() / "other.jsonl").string()}, "B-plaice");
}

}  // namespace
}  // namespace tailor::test
