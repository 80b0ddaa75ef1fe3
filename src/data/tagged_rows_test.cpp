#include "data/tagged_rows.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "core/files.h"
#include "core/json.h"
#include "core/tag_spans.h"
#include "data/tag_scheme.h"

namespace tailor {
namespace {

using Strings = std::vector<std::string>;

class TaggedRowsTest : public ::testing::Test {
 protected:
  Result<TaggedRows> read(const std::string& name, const std::string& content, TaggedReadOptions options = {}) {
    write_file_atomic(dir_.path() / name, content).value();
    return read_tagged_rows(dir_.path() / name, options);
  }
  static Strings words(const TaggedRow& row) {
    Strings out;
    for (const WordSpan& w : row.words) out.push_back(row.text.substr(w.begin, w.end - w.begin));
    return out;
  }
  const TemporaryDirectory dir_;
};

TEST_F(TaggedRowsTest, ReadsWordsWithTags) {
  const TaggedRows data =
      read("a.jsonl", R"({"tokens": ["Anna", "left", "New", "York"], "tags": ["B-per", "O", "B-loc", "I-loc"]}

{"words": ["hm"], "ner_tags": ["O"]}
{"tokens": [], "tags": []}
)")
          .value();
  ASSERT_EQ(data.rows.size(), 2u);
  EXPECT_EQ(data.rows[0].text, "Anna left New York");
  EXPECT_EQ(words(data.rows[0]), (Strings{"Anna", "left", "New", "York"}));
  EXPECT_EQ(data.rows[0].tags, (Strings{"B-per", "O", "B-loc", "I-loc"}));
  EXPECT_TRUE(data.rows[0].in_words);
  EXPECT_EQ(data.rows[1].line, 3u);
  EXPECT_EQ(data.empty, 1u);
  const TaggedRows array =
      read("a.json", R"([{"w": ["a", "b"], "t": ["X", "Y"]}])", {.words_key = "w", .tags_key = "t"}).value();
  EXPECT_EQ(array.rows[0].tags, (Strings{"X", "Y"}));
}

TEST_F(TaggedRowsTest, ReadsTextsWithSpansInCharacters) {
  const TaggedRows data =
      read(
          "a.jsonl",
          R"({"text": "Zoë’s in Århus, ok", "spans": [{"start": 0, "end": 3, "label": "per"}, {"start": 9, "end": 14, "label": "loc"}]}
{"text": "in town", "entities": [[3, 5, "loc"]]}
{"text": "a b", "spans": [{"start": 0, "end": 3, "label": "x"}, {"start": 2, "end": 3, "label": "y"}]}
)")
          .value();
  EXPECT_EQ(words(data.rows[0]), (Strings{"Zoë", "’", "s", "in", "Århus", ",", "ok"}));
  EXPECT_EQ(data.rows[0].tags, (Strings{"B-per", "O", "O", "O", "B-loc", "O", "O"}));
  EXPECT_FALSE(data.rows[0].in_words);
  EXPECT_EQ(data.rows[1].tags, (Strings{"O", "B-loc"}));  // half a word is the whole word
  EXPECT_EQ(data.adjusted, 1u);
  EXPECT_EQ(data.rows[2].tags, (Strings{"B-x", "I-x"}));
  EXPECT_EQ(data.overlapping, 1u);
}

TEST_F(TaggedRowsTest, ReadsColumns) {
  const TaggedRows data = read("a.conll",
                               "-DOCSTART- -X- O O\n\n# sent_id = 1\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\r\n"
                               "#\tO\nPeter Blackburn\tB-PER\n")
                              .value();
  ASSERT_EQ(data.rows.size(), 2u);
  EXPECT_EQ(words(data.rows[0]), (Strings{"EU", "rejects"}));
  EXPECT_EQ(data.rows[0].tags, (Strings{"B-ORG", "O"}));
  EXPECT_EQ(data.rows[0].line, 4u);
  EXPECT_EQ(words(data.rows[1]), (Strings{"#", "Peter Blackburn"}));  // tabs keep blanks
  const TaggedRows bare = read("b.txt", "one\ntwo\n", {.needs_tags = false}).value();
  EXPECT_TRUE(bare.rows[0].tags.empty());
}

TEST_F(TaggedRowsTest, RowsToBeAnsweredNeedNoTags) {
  const TaggedRows data =
      read("a.jsonl", "{\"tokens\": [\"a\"]}\n{\"text\": \"b c\"}\n", {.needs_tags = false}).value();
  EXPECT_TRUE(data.rows[0].tags.empty());
  EXPECT_EQ(words(data.rows[1]), (Strings{"b", "c"}));
}

TEST_F(TaggedRowsTest, SayWhatIsWrong) {
  const auto refused = [&](const std::string& name, const std::string& content, const std::string& part) {
    const auto result = read(name, content);
    ASSERT_FALSE(result.has_value()) << content;
    EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message;
  };
  refused("a.jsonl", "{\"tokens\": [\"a\"], \"tags\": [0]}", "a.jsonl:1: its tags are numbers");
  refused("a.jsonl", "\n{\"tokens\": [\"a\", \"b\"], \"tags\": [\"O\"]}", "a.jsonl:2: it has 2 words and 1 tags");
  refused("a.jsonl", "{\"tokens\": [\"a\"]}", "it has no tags");
  refused("a.jsonl", "{\"text\": \"a\"}", "it has no spans");
  refused("a.jsonl", "{\"message\": \"a\"}", "neither \"tokens\" nor \"text\"");
  refused("a.jsonl", "{\"text\": \"abc\", \"spans\": [[1, 9, \"x\"]]}", "a span from 1 to 9 in a text of 3 characters");
  refused("a.jsonl", "{\"text\": \"abc\", \"spans\": [[1, \"x\"]]}", "is not a span");
  refused("a.jsonl", "{\"tokens\": [", "a.jsonl:1");
  refused("a.jsonl", "[1]", "expected an object");
  refused("a.conll", "EU\tB-ORG\nrejects\n", "a.conll:2: \"rejects\" has no tag");
  refused("a.conll", "\n\n", "no row with words");
}

TEST(TagScheme, ReadsTheSpansThatSeqevalReads) {
  const char* tree = std::getenv("TAILOR_SOURCE_DIR");
  const Json golden = read_json(std::string(tree ? tree : ".") + "/tests/golden/data/span_scores.json").value();
  for (const Json& scheme : golden.at("schemes")) {
    const auto rows = scheme.at("rows").get<std::vector<Strings>>();
    const TagScheme tags = TagScheme::of(rows).value();
    EXPECT_TRUE(tags.iob2);
    for (std::size_t r = 0; r < rows.size(); ++r) {
      Json seen = Json::array();
      for (const TagSpan& s : spans_of_tags(tags.ids_of(rows[r]).value()))
        seen.push_back(Json{tags.names[static_cast<std::size_t>(s.type)], s.first, s.end - 1});
      EXPECT_EQ(seen, scheme.at("spans")[r]) << r;
    }
  }
}

TEST(TagScheme, NamesItsTags) {
  const std::vector<Strings> rows = {{"U-loc", "O"}, {"B-per", "L-per", "O"}};
  const TagScheme spans = TagScheme::of(rows).value();
  EXPECT_EQ(spans.label_names(), (Strings{"O", "B-loc", "I-loc", "B-per", "I-per"}));
  EXPECT_EQ(spans.ids_of(rows[1]).value(), (std::vector<std::int32_t>{3, 4, 0}));
  EXPECT_EQ(TagScheme::of_labels(spans.label_names(), true).names, spans.names);
  const std::vector<Strings> parts = {{"NOUN", "VERB"}};
  const TagScheme plain = TagScheme::of(parts).value();
  EXPECT_FALSE(plain.iob2);
  EXPECT_EQ(plain.ids_of(Strings{"VERB", "NOUN"}).value(), (std::vector<std::int32_t>{1, 0}));
  const auto unknown = spans.ids_of(Strings{"B-loq"});
  ASSERT_FALSE(unknown.has_value());
  EXPECT_NE(unknown.error().hint.find("B-loc"), std::string::npos);
  EXPECT_FALSE(TagScheme::of(std::vector<Strings>{{"O", "O"}}).has_value());
}

}  // namespace
}  // namespace tailor
