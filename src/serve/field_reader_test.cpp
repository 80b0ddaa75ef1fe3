#include "serve/field_reader.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace tailor {
namespace {

using Names = std::vector<std::string>;

TEST(FieldReader, TellsWhatNobodyReadWithItsPath) {
  const Json json{{"a", 1}, {"odd", 2}, {"none", nullptr}, {"inner", {{"b", 1}, {"odd", 2}, {"deep", {{"odd", 3}}}}}};
  FieldReader in(json);
  in.find("a");
  FieldReader inner(*in.find("inner"), "inner");
  inner.find("b");
  FieldReader deep(*inner.find("deep"), inner.path_of("deep"));
  inner.join(deep);
  in.join(inner);
  EXPECT_EQ(in.unread(), (Names{"odd", "inner.odd", "inner.deep.odd"}));
  EXPECT_FALSE(in.error());
}

TEST(FieldReader, NamesWhatTheElementsOfAListHaveOnce) {
  const Json list{{{"odd", 1}}, {{"odd", 1}, {"other", 1}}, {{"other", 1}}};
  const Json empty = Json::object();
  FieldReader in(empty);
  for (std::size_t i = 0; i < list.size(); ++i) in.join(FieldReader(list[i], "list[" + std::to_string(i) + "]"));
  EXPECT_EQ(in.unread(), (Names{"list[0].odd", "list[1].other"}));
}

TEST(FieldReader, NamesOnlySoMany) {
  Json many = Json::object();
  for (int i = 0; i < 1000; ++i) many["f" + std::to_string(i)] = i;
  EXPECT_EQ(FieldReader(many).unread().size(), FieldReader::kMostUnread);
  const Json empty = Json::object();
  FieldReader in(empty);
  in.join(FieldReader(many, "a"));
  in.join(FieldReader(many, "b"));
  EXPECT_EQ(in.unread().size(), FieldReader::kMostUnread);
}

TEST(FieldReader, BodiesOfManyNamesAreRefusedAndOfManyObjectsRead) {
  std::string names = "{\"input\": \"x\"", objects = "{\"input\": [{}";
  for (int i = 0; i < 300'000; ++i) {
    names += fmt::format(", \"{:x}\": 0", i);
    objects += ", {}";
  }
  const auto refused = parse_body(names + "}");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().status, 400);
  EXPECT_NE(refused.error().message.find("more names"), std::string::npos) << refused.error().message;
  auto read = parse_body(objects + "]}");
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ((*read)["input"].size(), 300'001U);
  const auto twice = parse_body(R"({"a": {"b": 1, "c": {"b": 2}, "b": 3}})");
  EXPECT_EQ(twice.error().param, "b");
  EXPECT_FALSE(parse_json(names + "}", "arguments").has_value());
}

TEST(FieldReader, TakesOverTheFirstError) {
  const Json json{{"n", "x"}};
  const Json empty = Json::object();
  FieldReader in(empty), inner(json, "inner");
  inner.integer("n", 1, 0, 5);
  in.join(inner);
  ASSERT_TRUE(in.error());
  EXPECT_EQ(in.error()->param, "inner.n");
}

}  // namespace
}  // namespace tailor
