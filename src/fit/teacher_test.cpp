#include "fit/teacher.h"

#include <gtest/gtest.h>

#include "core/files.h"

namespace tailor {
namespace {

const std::vector<std::string> kLabels{"a", "b"};

class TeacherFile : public ::testing::Test {
 protected:
  Result<Teacher> open(const std::string& name, const std::string& content) {
    write_file_atomic(dir_.path() / name, content).value();
    return Teacher::open(dir_.path() / name, kLabels, 1);
  }
  std::string refusal(const std::string& name, const std::string& content) {
    const auto teacher = open(name, content);
    return teacher ? std::string() : teacher.error().message;
  }
  static TeacherAnswers answer(Teacher& teacher) {
    const std::vector<std::string> texts{"One  text", "another", "a third"};
    const std::vector<std::int64_t> rows{7, 8, 9};
    const CancelToken never;
    return teacher.answer(texts, rows, {}, never).value();
  }
  TemporaryDirectory dir_;
};

TEST_F(TeacherFile, AnswersOfEveryShapeFindTheirRows) {
  const std::pair<const char*, const char*> files[] = {
      {"named.jsonl",
       "{\"text\": \"one text\", \"label\": \"b\", \"probabilities\": {\"b\": 0.75, \"a\": 0.25}}\n"
       "{\"text\": \"a third\", \"probabilities\": {\"a\": 1, \"b\": 0}}\n"},
      {"rows.jsonl", "{\"row\": 7, \"p\": [0.25, 0.75]}\n{\"row\": 9, \"p\": [1, 0]}\n"},
      {"scored.csv", "row,label,confidence,p:b,p:a,text\n1,b,0.75,0.75,0.25,one text\n2,a,1,0,1,a third\n"}};
  for (const auto& [name, content] : files) {
    auto teacher = open(name, content);
    ASSERT_TRUE(teacher) << teacher.error().message;
    EXPECT_FALSE(teacher->is_package());
    const TeacherAnswers answers = answer(*teacher);
    EXPECT_EQ(answers.answered, 2u) << name;
    EXPECT_EQ(answers.given, (std::vector<std::uint8_t>{1, 0, 1})) << name;
    EXPECT_EQ(answers.probabilities.data, (std::vector<float>{0.25f, 0.75f, 0, 0, 1, 0})) << name;
  }
}

TEST_F(TeacherFile, SaysWhatIsWrong) {
  const auto expect = [&](const std::string& name, const std::string& content, const char* part) {
    EXPECT_NE(refusal(name, content).find(part), std::string::npos) << refusal(name, content);
  };
  expect("a.jsonl", "{\"text\": \"x\", \"probabilities\": {\"a\": 0.5, \"c\": 0.5}}\n", "does not know the label 'b'");
  expect("a.jsonl", "{\"text\": \"x\", \"probabilities\": {\"a\": 0.5, \"b\": 0.5, \"c\": 0}}\n", "has the label 'c'");
  expect("a.jsonl", "{\"text\": \"x\", \"p\": [0.5, 0.4]}\n", ":1: the probabilities of the labels should sum to 1");
  expect("a.jsonl", "{\"text\": \"x\", \"p\": [1.5, -0.5]}\n", "should sum to 1");
  expect("a.jsonl", "{\"text\": \"x\", \"p\": [1]}\n", "or \"p\" with 2 numbers");
  expect("a.jsonl", "{\"p\": [1, 0]}\n", "expected \"text\" or \"row\"");
  expect("a.jsonl", "", "no answers");
  expect("a.csv", "text,p:a,p:b\nx,0.5,half\n", "'half' is no probability");
  expect("a.csv", "words,p:a,p:b\nx,0.5,0.5\n", "text");
  EXPECT_EQ(Teacher::open(dir_.path() / "absent", kLabels, 1).error().code, ErrorCode::kNotFound);
}

/// Ten rows of one file, six to train on, two and two held out; two more rows of a file of their own for the test.
PreparedData data(bool test_file) {
  PreparedData d;
  const std::size_t n = test_file ? 12 : 10;
  d.dataset.files = {"data.csv", "test.csv"};
  d.file_hashes = {"hash-of-data", "hash-of-test"};
  for (std::size_t i = 0; i < n; ++i) {
    d.dataset.texts.push_back("text");
    d.dataset.labels.push_back(0);
    d.dataset.file_of.push_back(i < 10 ? 0 : 1);
    d.split.part.push_back(i < 6                 ? Part::kTrain
                           : i < 8               ? Part::kValidation
                           : i < 10 && test_file ? Part::kTrain
                                                 : Part::kTest);
  }
  return d;
}

PackageManifest fitted(const char* hash, const char* on, int rows, int seed) {
  PackageManifest m;
  m.data = Json{{"files", Json::array({Json{{"file", "data.csv"}, {"sha256", hash}}})},
                {"rows", rows},
                {"fitted_on", on},
                {"seed", seed}};
  return m;
}

TEST(WhatATeacherSaw, FollowsFromItsFileSeedAndRows) {
  const auto saw = [](const PackageManifest& m, bool test_file = false) {
    const TeacherSaw s = what_it_saw(m, data(test_file), 1);
    return std::vector<bool>{s.known, s.train, s.validation, s.test};
  };
  using Answer = std::vector<bool>;
  EXPECT_EQ(saw(fitted("hash-of-data", "train", 6, 1)), (Answer{true, true, false, false}));
  EXPECT_EQ(saw(fitted("hash-of-data", "train+validation", 8, 1)), (Answer{true, true, true, false}));
  EXPECT_EQ(saw(fitted("hash-of-data", "train", 6, 2)), (Answer{true, true, true, true}));  // another split
  EXPECT_EQ(saw(fitted("hash-of-data", "train", 5, 1)), (Answer{true, true, true, true}));
  EXPECT_EQ(saw(fitted("another", "train", 6, 1)), (Answer{true, false, false, false}));
  EXPECT_EQ(saw(fitted("hash-of-data", "train", 6, 2), true), (Answer{true, true, true, false}));
  EXPECT_EQ(saw(fitted("hash-of-test", "train", 6, 1), true), (Answer{true, false, false, true}));
  EXPECT_EQ(saw(PackageManifest{}), (Answer{false, false, false, false}));
}

}  // namespace
}  // namespace tailor
