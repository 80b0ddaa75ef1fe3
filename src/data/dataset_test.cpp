#include "data/dataset.h"

#include <gtest/gtest.h>

#include "core/files.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

class DatasetTest : public testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& bytes) {
    const fs::path file = dir_.path() / name;
    write_file_atomic(file, bytes).value();
    return file;
  }
  Result<Dataset> load(const std::string& bytes, const ColumnSpec& spec) {
    report_ = {};
    return load_dataset(write("in.csv", bytes), spec, {}, report_);
  }
  std::string error_of(const std::string& bytes, const ColumnSpec& spec) {
    const auto data = load(bytes, spec);
    return data ? "no error" : to_string(data.error()).substr(dir_.path().string().size() + 1);
  }
  TemporaryDirectory dir_;
  DataReport report_;
};

const ColumnSpec kSpec{{"text"}, "", "label"};

TEST_F(DatasetTest, SortsLabelsTrimsThemAndKeepsTextsAsWritten) {
  const Dataset data = load("label,text\n b ,\" Two \"\na,one\nb,three\n\xC2\xA0Z,four\n", kSpec).value();
  EXPECT_EQ(data.label_names, (std::vector<std::string>{"Z", "a", "b"}));
  EXPECT_EQ(data.labels, (std::vector<std::int32_t>{2, 1, 2, 0}));
  EXPECT_EQ(data.texts, (std::vector<std::string>{" Two ", "one", "three", "four"}));
  EXPECT_EQ(data.lines, (std::vector<std::uint32_t>{2, 3, 4, 5}));
  EXPECT_EQ(data.file_of, (std::vector<std::uint8_t>{0, 0, 0, 0}));
}

TEST_F(DatasetTest, DropsEmptyTextsAndLabelsAndSaysWhere) {
  const Dataset data = load("text,label\none,a\n  ,a\n\xE2\x80\x8B,a\ntwo,\" \"\nthree,b\n", kSpec).value();
  EXPECT_EQ(data.texts, (std::vector<std::string>{"one", "three"}));
  EXPECT_EQ(report_.rows_read, 5U);
  EXPECT_EQ(report_.rows_kept, 2U);
  EXPECT_EQ(report_.empty_texts, 2U);
  EXPECT_EQ(report_.empty_labels, 1U);
  ASSERT_EQ(report_.findings.size(), 2U);
  EXPECT_EQ(report_.findings[0].code, "empty_texts");
  EXPECT_EQ(report_.findings[0].lines, (std::vector<std::uint32_t>{3, 4}));
  EXPECT_EQ(report_.findings[0].message, "2 of 5 rows have no text and were left out (line 3, 4)");
  EXPECT_EQ(report_.findings[1].message, "1 of 5 rows has no label and was left out (line 5)");
}

TEST_F(DatasetTest, NothingLeftIsAnError) {
  EXPECT_TRUE(
      error_of("text,label\n,a\nx,\n", kSpec)
          .starts_with("in.csv: none of the 2 rows has both a text and a label (1 without text, 1 without label)"));
}

TEST_F(DatasetTest, ColumnsAreJoinedOrPutIntoATemplate) {
  const std::string bytes = "subject,body,label\nHello,my {card},a\n,x,b\n";
  EXPECT_EQ(load(bytes, {{"subject", "body"}, "", "label"}).value().texts,
            (std::vector<std::string>{"Hello\nmy {card}", "\nx"}));
  EXPECT_EQ(load(bytes, {{}, "{subject}: {{{ body }}}!", "label"}).value().texts,
            (std::vector<std::string>{"Hello: {my {card}}!", ": {x}!"}));
}

TEST_F(DatasetTest, ATemplateAroundEmptyCellsIsNoText) {
  EXPECT_EQ(load("s,b,label\n,,a\nx,,b\n", {{}, "Subject: {s} Body: {b}", "label"}).value().texts,
            (std::vector<std::string>{"Subject: x Body: "}));
  EXPECT_EQ(report_.empty_texts, 1U);
}

TEST_F(DatasetTest, WrongTemplatesAndColumnsAreErrors) {
  const std::string bytes = "subject,body,label\na,b,c\n";
  EXPECT_NE(load(bytes, {{}, "{subjct}", "label"})
                .error()
                .message.find("there is no column 'subjct'; the columns are 'subject', 'body', 'label'"),
            std::string::npos);
  EXPECT_EQ(load(bytes, {{}, "{subject", "label"}).error().message,
            "the text template \"{subject\" has a { that is not closed");
  EXPECT_EQ(load(bytes, {{}, "subject}", "label"}).error().message,
            "the text template \"subject}\" has a } without its {");
  EXPECT_EQ(load(bytes, {{}, "words", "label"}).error().message, "the text template \"words\" names no column");
  EXPECT_EQ(load(bytes, {{}, "", "label"}).error().message, "no text column was named");
  EXPECT_EQ(to_string(load(bytes, {{"body"}, "", ""}).error()),
            "no label column was named (name one of 'subject', 'body', 'label' with --label)");
  EXPECT_NE(load(bytes, {{"body"}, "", "lable"}).error().hint.find("did you mean 'label'?"), std::string::npos);
}

TEST_F(DatasetTest, AppendedRowsUseTheLabelsOfTheFirst) {
  Dataset data = load("text,label\nx,a\ny,b\nz,c\n", kSpec).value();
  DataReport report;
  Dataset test = load_dataset(write("test.csv", "label,text\nc,one\na,two\n"), kSpec, {}, report).value();
  append_dataset(data, std::move(test), "test file").value();
  EXPECT_EQ(data.labels, (std::vector<std::int32_t>{0, 1, 2, 2, 0}));
  EXPECT_EQ(data.file_of, (std::vector<std::uint8_t>{0, 0, 0, 1, 1}));
  EXPECT_EQ(fs::path(data.files[1]).filename(), "test.csv");
  EXPECT_EQ(data.lines[3], 2U);
}

TEST_F(DatasetTest, LabelsThatTrainingDoesNotKnowAreAnError) {
  Dataset data = load("text,label\nx,arrival\ny,b\n", kSpec).value();
  DataReport report;
  Dataset test =
      load_dataset(write("test.csv", "text,label\none,arival\ntwo,b\nthree,arival\nfour,other\n"), kSpec, {}, report)
          .value();
  const Status status = append_dataset(data, std::move(test), "test file");
  ASSERT_FALSE(status);
  EXPECT_TRUE(status.error().message.ends_with(
      "test.csv has 2 labels that no training row has: 'arival' (2 rows), 'other' (1 row)"))
      << status.error().message;
  EXPECT_EQ(status.error().hint,
            "is 'arival' meant to be 'arrival'? otherwise add training rows for it or leave its rows out");
  EXPECT_EQ(data.size(), 2U);
}

TEST_F(DatasetTest, PredictionInputKeepsEveryRowAndTellsOfLabels) {
  const fs::path file = write("new.csv", "id,text,label\n7,hello,a\n8,,b \n");
  const PredictionInput input = load_texts(file, kSpec, {}, report_).value();
  EXPECT_EQ(input.texts, (std::vector<std::string>{"hello", ""}));
  EXPECT_EQ(input.lines, (std::vector<std::uint32_t>{2, 3}));
  EXPECT_EQ(input.labels.value(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(input.table.cell(1, 0), "8");
  EXPECT_EQ(report_.empty_texts, 1U);
  DataReport report;
  EXPECT_FALSE(load_texts(write("bare.csv", "text\nhello\n"), kSpec, {}, report).value().labels.has_value());
}

}  // namespace
}  // namespace tailor
