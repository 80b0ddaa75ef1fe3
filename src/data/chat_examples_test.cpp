#include "data/chat_examples.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/files.h"

namespace tailor {

void PrintTo(const ChatTurn& turn, std::ostream* out) {
  *out << turn.role << (turn.learn ? "+" : "") << ": " << turn.content;
}

namespace {

namespace fs = std::filesystem;
using std::string_literals::operator""s;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;
using Turns = std::vector<ChatTurn>;

ChatTurn system(std::string text) {
  return {"system", std::move(text), false};
}
ChatTurn user(std::string text) {
  return {"user", std::move(text), false};
}
ChatTurn assistant(std::string text, bool learn = true) {
  return {"assistant", std::move(text), learn};
}

ChatData parse(std::string bytes, const std::string& name = "in.jsonl", const ChatReadOptions& options = {}) {
  return parse_chat_examples(std::move(bytes), name, options).value();
}
std::string error_of(std::string bytes, const std::string& name = "in.jsonl", const ChatReadOptions& options = {}) {
  const auto data = parse_chat_examples(std::move(bytes), name, options);
  return data ? "no error" : to_string(data.error());
}

/// The one example of a file that gives no warning.
ChatExample only(std::string bytes, const std::string& name = "in.jsonl") {
  ChatData data = parse(std::move(bytes), name);
  EXPECT_THAT(data.warnings, ElementsAre());
  EXPECT_EQ(data.examples.size(), 1U);
  return data.examples.at(0);
}

std::string chat(const std::string& messages) {
  return R"({"messages": [)" + messages + "]}\n";
}
const std::string kHello = R"({"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"})";
const std::string kPair = chat(kHello);

// Shapes

TEST(ChatExamples, Messages) {
  const ChatData data = parse(chat(R"({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"},)"
                                   R"({"role": "assistant", "content": "2"})"));
  EXPECT_EQ(data.shape, ChatShape::kMessages);
  ASSERT_EQ(data.examples.size(), 1U);
  EXPECT_EQ(data.examples[0].form, ExampleForm::kChat);
  EXPECT_EQ(data.examples[0].line, 1U);
  EXPECT_EQ(data.examples[0].turns, (Turns{system("Be brief."), user("1+1?"), assistant("2")}));
  EXPECT_EQ(only(chat(R"({"role": "developer", "content": "d"}, )" + kHello)).turns,
            (Turns{system("d"), user("hello"), assistant("hi")}));
  EXPECT_EQ(only(R"({"system": "s", "messages": [)" + kHello + "]}").turns,
            (Turns{system("s"), user("hello"), assistant("hi")}));
}

TEST(ChatExamples, ContentMayBeParts) {
  EXPECT_EQ(only(chat(R"({"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]},)"
                      R"({"role": "assistant", "content": [{"type": "text", "text": "c"}]})"))
                .turns,
            (Turns{user("a b"), assistant("c")}));
}

TEST(ChatExamples, NullAndEmptyExtrasCountAsAbsent) {
  EXPECT_EQ(
      only(R"({"messages": [{"role": "user", "content": "u", "name": null}, {"role": "assistant", "content": "a",)"
           R"("tool_calls": null, "function_call": null, "weight": null}], "tools": [], "system": null})")
          .turns,
      (Turns{user("u"), assistant("a")}));
  EXPECT_EQ(
      only(chat(R"({"role": "user", "content": "u"}, {"role": "assistant", "content": "a", "tool_calls": []})")).turns,
      (Turns{user("u"), assistant("a")}));
}

TEST(ChatExamples, WeightsChooseWhatIsLearnt) {
  EXPECT_EQ(
      only(chat(R"({"role": "user", "content": "1", "weight": 0}, {"role": "assistant", "content": "2", "weight": 0},)"
                R"({"role": "user", "content": "3"}, {"role": "assistant", "content": "4", "weight": 1})"))
          .turns,
      (Turns{user("1"), assistant("2", false), user("3"), assistant("4")}));
}

TEST(ChatExamples, ShareGpt) {
  const ChatData data =
      parse(R"({"system": "s", "conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]})");
  EXPECT_EQ(data.shape, ChatShape::kShareGpt);
  EXPECT_EQ(data.examples.at(0).turns, (Turns{system("s"), user("u"), assistant("a")}));
  EXPECT_EQ(
      only(
          R"({"conversations": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a", "weight": 1}],)"
          R"( "tools": "[]", "system": ""})")
          .turns,
      (Turns{user("u"), assistant("a")}));
  EXPECT_EQ(
      only(
          R"({"conversations": [{"from": "system", "value": "s"}, {"from": "user", "value": "u"}, {"from": "gpt", "value": "a"}]})")
          .turns,
      (Turns{system("s"), user("u"), assistant("a")}));
}

TEST(ChatExamples, Alpaca) {
  const ChatData data = parse(R"({"instruction": "Translate.", "input": "Haus", "output": "house"})");
  EXPECT_EQ(data.shape, ChatShape::kAlpaca);
  EXPECT_EQ(data.examples.at(0).form, ExampleForm::kChat);
  EXPECT_EQ(data.examples.at(0).turns, (Turns{user("Translate.\n\nHaus"), assistant("house")}));
  EXPECT_EQ(
      only(
          R"({"instruction": "i", "input": " ", "output": "o", "system": "s", "history": [["u1", "a1"], ["u2", "a2"]]})")
          .turns,
      (Turns{system("s"), user("u1"), assistant("a1"), user("u2"), assistant("a2"), user("i"), assistant("o")}));
  EXPECT_EQ(only(R"({"instruction": "i", "input": null, "output": "o", "history": []})").turns,
            (Turns{user("i"), assistant("o")}));
}

TEST(ChatExamples, Bedrock) {
  const ChatData data =
      parse(R"({"schemaVersion": "bedrock-conversation-2024", "system": [{"text": "s"}, {"text": "t"}], "messages": )"
            R"([{"role": "user", "content": [{"text": "u"}]}, {"role": "assistant", "content": [{"text": "a"}]}]})");
  EXPECT_EQ(data.shape, ChatShape::kBedrock);
  EXPECT_EQ(data.examples.at(0).turns, (Turns{system("s\n\nt"), user("u"), assistant("a")}));
}

TEST(ChatExamples, PromptAndCompletion) {
  const ChatData texts = parse(R"({"prompt": "2+2=", "completion": " 4"})");
  EXPECT_EQ(texts.shape, ChatShape::kPromptCompletion);
  EXPECT_EQ(texts.examples.at(0).form, ExampleForm::kCompletion);
  EXPECT_EQ(texts.examples.at(0).turns, (Turns{{"prompt", "2+2=", false}, {"completion", " 4", true}}));

  const ChatData lists = parse(
      R"({"prompt": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "v"}],)"
      R"( "completion": [{"role": "assistant", "content": "b"}]})");
  EXPECT_EQ(lists.shape, ChatShape::kPromptCompletion);
  EXPECT_EQ(lists.examples.at(0).form, ExampleForm::kChat);
  EXPECT_EQ(lists.examples.at(0).turns, (Turns{user("u"), assistant("a", false), user("v"), assistant("b")}));
}

TEST(ChatExamples, Text) {
  const ChatData data = parse("{\"text\": \"all of it\"}");
  EXPECT_EQ(data.shape, ChatShape::kText);
  EXPECT_EQ(data.examples.at(0).form, ExampleForm::kText);
  EXPECT_EQ(data.examples.at(0).turns, (Turns{{"text", "all of it", true}}));
}

TEST(ChatExamples, Tables) {
  const ChatData instructions =
      parse("instruction,input,output,system\n\"Say, \"\"x\"\"\",,x\\n,\nAdd,1 2,3,Be\n", "in.csv");
  EXPECT_EQ(instructions.shape, ChatShape::kAlpaca);
  ASSERT_EQ(instructions.examples.size(), 2U);
  EXPECT_EQ(instructions.examples[0].turns, (Turns{user("Say, \"x\""), assistant("x\\n")}));
  EXPECT_EQ(instructions.examples[1].turns, (Turns{system("Be"), user("Add\n\n1 2"), assistant("3")}));
  EXPECT_EQ(instructions.examples[1].line, 3U);
  EXPECT_EQ(only("prompt\tcompletion\np\tc\n", "in.tsv").turns,
            (Turns{{"prompt", "p", false}, {"completion", "c", true}}));
  EXPECT_EQ(only("text\nt\n", "in.CSV").turns, (Turns{{"text", "t", true}}));
  EXPECT_EQ(only("text\ncaf\xC3\xA9\n", "in.csv").turns, (Turns{{"text", "caf\xC3\xA9", true}}));
  const ChatData windows = parse("text\ncaf\xE9\n", "in.csv", {.encoding = "windows-1252"});
  EXPECT_EQ(windows.examples.at(0).turns, (Turns{{"text", "caf\xC3\xA9", true}}));
}

// Files

TEST(ChatExamples, LineEndsMarksAndEmptyLines) {
  const std::string other = chat(R"({"role": "user", "content": "b"}, {"role": "assistant", "content": "c"})");
  const ChatData data = parse("\xEF\xBB\xBF\r\n" + kPair.substr(0, kPair.size() - 1) + "\r\n\r\n \t\n" +
                              other.substr(0, other.size() - 1));
  ASSERT_EQ(data.examples.size(), 2U);
  EXPECT_EQ(data.examples[0].line, 2U);
  EXPECT_EQ(data.examples[1].line, 5U);
  std::string wide = "\xFF\xFE";
  for (const char c : kPair) wide += {c, '\0'};
  EXPECT_EQ(only(wide).turns, (Turns{user("hello"), assistant("hi")}));
}

TEST(ChatExamples, OneArray) {
  const ChatData data = parse(" [\n{\"text\": \"a\"},\n\n{\"text\":\n\"b\"}]\n", "in.json");
  ASSERT_EQ(data.examples.size(), 2U);
  EXPECT_EQ(data.examples[1].line, 2U);
  EXPECT_EQ(only("[{\"text\": \"a\"}]", "in.jsonl").line, 1U);
  EXPECT_EQ(only("{\"text\": \"a\"}", "in.json").line, 1U);
  EXPECT_THAT(error_of("[{\"text\": \"a\"}, {\"text\": 1}]", "in.json"),
              StartsWith("in.json, element 2: expected 'text' to be a text, saw a number"));
}

TEST(ChatExamples, EscapesAreUndone) {
  EXPECT_EQ(only(R"({"text": "a\n\u00e4\ud83d\ude00\"\\"})").turns[0].content, "a\n\xC3\xA4\xF0\x9F\x98\x80\"\\");
}

TEST(ChatExamples, ReadsFilesAndTellsThemApart) {
  const TemporaryDirectory dir;
  const auto file = [&](const std::string& name, const std::string& bytes) {
    write_file_atomic(dir.path() / name, bytes).value();
    return dir.path() / name;
  };
  const fs::path good = file("a.jsonl", kPair);
  EXPECT_EQ(read_chat_examples(good).value().examples.size(), 1U);
  EXPECT_EQ(read_chat_examples(good).value().file, good.string());
  EXPECT_TRUE(looks_like_chat_data(good));
  EXPECT_TRUE(looks_like_chat_data(file("b.json", "\xEF\xBB\xBF[\n " + kPair + "]")));
  EXPECT_TRUE(looks_like_chat_data(file("c.jsonl", "\n{\"text\": \"" + std::string(100000, 'x') + "\"}\n")));
  EXPECT_TRUE(looks_like_chat_data(file("d.csv", "id,instruction,output\n1,i,o\n")));
  EXPECT_TRUE(looks_like_chat_data(file("e.tsv", "prompt\tcompletion\np\t" + std::string(100000, 'x') + "\n")));
  EXPECT_TRUE(looks_like_chat_data(file("f.jsonl", R"({"prompt": "p", "chosen": "a", "rejected": "b"})")));
  EXPECT_TRUE(
      looks_like_chat_data(file("g.json", "[\n{\"text\": \"x\"},\n{\"text\": \"" + std::string(100000, 'y') + "\"}]")));
  EXPECT_FALSE(looks_like_chat_data(file("h.csv", "text,label\nt,l\n")));
  EXPECT_FALSE(looks_like_chat_data(file("i.jsonl", R"({"question": "q", "answer": "a"})")));
  EXPECT_FALSE(looks_like_chat_data(file("j.jsonl", R"({"text": "q", "label": "a"})")));
  EXPECT_FALSE(looks_like_chat_data(file("k.txt", kPair)));
  EXPECT_FALSE(looks_like_chat_data(file("l.jsonl", "")));
  EXPECT_FALSE(looks_like_chat_data(file("m.jsonl", "{\"text\": \"open")));
  EXPECT_FALSE(looks_like_chat_data(file("n.json", "[1, 2]")));
  EXPECT_FALSE(looks_like_chat_data(dir.path() / "absent.jsonl"));
  EXPECT_FALSE(looks_like_chat_data(dir.path()));

  const auto error = [](const fs::path& path) { return to_string(read_chat_examples(path).error()); };
  EXPECT_THAT(error(dir.path() / "absent.jsonl"), HasSubstr("absent.jsonl"));
  EXPECT_EQ(read_chat_examples(dir.path() / "absent").error().code, ErrorCode::kNotFound);
  EXPECT_THAT(error(dir.path()), HasSubstr("is a directory"));
  EXPECT_THAT(error(file("a.parquet", "PAR1")),
              HasSubstr("expected a name that ends with .jsonl, .json, .csv or .tsv, saw '.parquet'"));
}

// Warnings

TEST(ChatExamples, TurnsAfterTheLastAnswerAreCut) {
  const ChatData data = parse(kPair + chat(R"({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},)"
                                           R"({"role": "user", "content": "thanks"})"));
  ASSERT_EQ(data.examples.size(), 2U);
  EXPECT_EQ(data.examples[1].turns, (Turns{user("a"), assistant("b")}));
  EXPECT_EQ(data.cut, 1U);
  EXPECT_THAT(data.warnings, ElementsAre("in.jsonl: one example ends with a turn that is not the assistant's: what "
                                         "follows its last answer is cut (line 2)"));
}

TEST(ChatExamples, ExamplesWithoutALearntTurnAreLeftOut) {
  const std::string muted =
      chat(R"({"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0})");
  const std::string unanswered = chat(R"({"role": "system", "content": "s"}, {"role": "user", "content": "a"})");
  const ChatData data = parse(kPair + muted + unanswered);
  EXPECT_EQ(data.examples.size(), 1U);
  EXPECT_EQ(data.rows, 3U);
  EXPECT_EQ(data.left_out, 2U);
  EXPECT_THAT(data.warnings,
              ElementsAre("in.jsonl: 2 examples are left out: no assistant's turn in them is learnt (the "
                          "first: line 2)"));
  EXPECT_THAT(error_of(muted + unanswered), StartsWith("in.jsonl: none of 2 rows holds anything to learn from"));
}

TEST(ChatExamples, DuplicatesAreKeptOnce) {
  const std::string other = R"({"text": "b"})"
                            "\n";
  const ChatData data = parse("{\"text\": \"a\"}\n" + other + "{ \"text\" : \"\\u0061\"}\n" + other);
  EXPECT_EQ(data.examples.size(), 2U);
  EXPECT_EQ(data.duplicates, 2U);
  EXPECT_EQ(data.rows, 4U);
  EXPECT_THAT(data.warnings,
              ElementsAre("in.jsonl: 2 examples are the same as an earlier one, which is kept (the first: line 3)"));
  const std::string muted =
      chat(R"({"role": "user", "content": "u"}, {"role": "assistant", "content": "a", "weight": 0},)"
           R"({"role": "user", "content": "u"}, {"role": "assistant", "content": "a"})");
  const std::string learnt = chat(R"({"role": "user", "content": "u"}, {"role": "assistant", "content": "a"},)"
                                  R"({"role": "user", "content": "u"}, {"role": "assistant", "content": "a"})");
  EXPECT_EQ(parse(muted + learnt).examples.size(), 2U);  // what is learnt differs
}

TEST(ChatExamples, KeysThatAreNotUsedAreNamed) {
  const ChatData data = parse(R"({"id": 1, "text": "a"})"
                              "\n"
                              R"({"id": 2, "meta": {"text": "x"}, "text": "b"})"
                              "\n");
  EXPECT_THAT(data.warnings,
              ElementsAre("in.jsonl: these keys are not used: 'id' (2 times, first: line 1), 'meta' (line 2)"));
  EXPECT_THAT(
      parse(chat(R"({"role": "user", "content": "u", "name": "Ann"}, {"role": "assistant", "content": "a"})")).warnings,
      ElementsAre(HasSubstr("'messages[].name' (line 1)")));
  EXPECT_THAT(parse("id,prompt,completion\n7,p,c\n", "in.csv").warnings,
              ElementsAre(HasSubstr("not used: 'id' (line 2)")));
  std::string many = "{\"text\": \"a\"";
  for (int i = 0; i < 1000; ++i) many += ", \"k" + std::to_string(i) + "\": 1";
  EXPECT_THAT(parse(many + "}").warnings, ElementsAre(HasSubstr("and others (984 times)")));
}

// Errors

TEST(ChatExamples, EmptyFiles) {
  EXPECT_THAT(error_of(""), StartsWith("in.jsonl is empty"));
  EXPECT_THAT(error_of("\xEF\xBB\xBF\r\n \n"), StartsWith("in.jsonl is empty"));
  EXPECT_THAT(error_of("[]", "in.json"), StartsWith("in.json holds no examples"));
  EXPECT_THAT(error_of("text\n", "in.csv"), HasSubstr("no rows"));
}

TEST(ChatExamples, BytesThatAreNoText) {
  EXPECT_THAT(error_of("{\"text\": \"a\"}\n{\"text\": \"caf\xE9\"}\n"),
              testing::AllOf(StartsWith("in.jsonl:2:"), HasSubstr("0xE9"), HasSubstr("not UTF-8")));
  EXPECT_THAT(error_of("{\"text\": \"a\0b\"}"s), testing::AllOf(StartsWith("in.jsonl:1:"), HasSubstr("NUL")));
  EXPECT_THAT(error_of(R"({"text": "a\u0000b"})"),
              StartsWith("in.jsonl:1: 'text' holds a NUL character (after 1 bytes)"));
}

TEST(ChatExamples, BrokenJson) {
  EXPECT_THAT(error_of("{\"text\": \"a\"}\n\n{\"text\": a}\n"),
              StartsWith("in.jsonl:3, column 10: not valid JSON: syntax error"));
  EXPECT_THAT(error_of("{\"text\": \"a\"},\n{\"text\": \"b\"}\n"),
              testing::AllOf(StartsWith("in.jsonl:1, column 14: not valid JSON"), HasSubstr("without a comma")));
  EXPECT_THAT(error_of("{\n  \"text\": \"a\"\n}\n"), testing::AllOf(StartsWith("in.jsonl:1, column 2: not valid JSON"),
                                                                    HasSubstr("put them into one list: [ ... ]")));
  EXPECT_THAT(error_of("[{\"text\": \"a\"},\n {\"text\": \"b\"},\n]", "in.json"),
              StartsWith("in.json:3, column 1: not valid JSON"));
  EXPECT_THAT(error_of("[{\"text\": \"a\"}\n", "in.json"), StartsWith("in.json:2, column 1: not valid JSON"));
  EXPECT_THAT(error_of(R"({"text": "\ud800"})"), HasSubstr("surrogate"));
  EXPECT_THAT(error_of("{\"text\": \"a\", \"n\": 1e999}"), HasSubstr("in.jsonl:1: not valid JSON: "));
  const std::string deep = std::string(100, '[') + std::string(100, ']');
  EXPECT_THAT(error_of("{\"text\": \"a\", \"x\": " + deep + "}"),
              StartsWith("in.jsonl:1: JSON is nested deeper than 63"));
  EXPECT_THAT(error_of(std::string(1000000, '['), "in.json"),
              testing::AnyOf(HasSubstr("nested deeper"), HasSubstr("not valid JSON")));
}

TEST(ChatExamples, RowsThatAreNoObjects) {
  EXPECT_THAT(error_of("{\"text\": \"a\"}\n3\n"),
              StartsWith("in.jsonl:2: expected the row to be an object, saw a number"));
  EXPECT_THAT(error_of("[[1]]", "in.json"),
              StartsWith("in.json, element 1: expected the row to be an object, saw a list"));
  EXPECT_THAT(error_of("null\n"), StartsWith("in.jsonl:1: expected the row to be an object, saw null"));
  EXPECT_THAT(error_of(R"({"text": "a", "text": "b"})"), StartsWith("in.jsonl:1: the key 'text' is there twice"));
}

TEST(ChatExamples, UnknownShapes) {
  EXPECT_THAT(error_of(R"({"message": [], "id": 3})"),
              testing::AllOf(StartsWith("in.jsonl:1: the keys 'message', 'id' make none of the known shapes"),
                             HasSubstr("did you mean 'messages' instead of 'message'?")));
  EXPECT_THAT(error_of(R"({"question": "q", "answer": "a"})"),
              testing::AllOf(HasSubstr("the keys 'question', 'answer'"), HasSubstr("\"prompt\" and \"completion\"")));
  EXPECT_THAT(error_of("{}"), StartsWith("in.jsonl:1: the row has no key with a value"));
  EXPECT_THAT(error_of(R"({"data": [{"text": "a"}]})"),
              HasSubstr("if the list 'data' holds the rows, make that list the whole file"));
  EXPECT_THAT(error_of(R"({"text": "a", "summary": "b"})"), StartsWith("in.jsonl:1: 'text' stands beside 'summary'"));
  EXPECT_THAT(error_of(R"({"prompt": null, "completion": "b"})"), HasSubstr("'prompt' is missing beside 'completion'"));
  EXPECT_THAT(error_of("text,intent\na,b\n", "in.csv"), StartsWith("in.csv: 'text' stands beside 'intent'"));
  EXPECT_THAT(error_of("question,answer\na,b\n", "in.csv"), HasSubstr("the keys 'question', 'answer'"));
  EXPECT_THAT(error_of("messages\n[]\n", "in.csv"), HasSubstr("a table cannot hold chat messages"));
}

TEST(ChatExamples, OneShapeInAFile) {
  EXPECT_THAT(error_of("\n" + kPair + "{\"instruction\": \"i\", \"output\": \"o\"}\n"),
              StartsWith("in.jsonl:3: expected chat messages as on line 2, saw instructions (the keys 'instruction', "
                         "'output')"));
  EXPECT_THAT(error_of(kPair + R"({"mesages": []})"),
              testing::AllOf(StartsWith("in.jsonl:2: expected chat messages as on line 1, saw the key 'mesages'"),
                             HasSubstr("did you mean 'messages'")));
  EXPECT_THAT(error_of(R"([{"text": "a"}, {"prompt": "a", "completion": "b"}])", "in.json"),
              StartsWith("in.json, element 2: expected plain texts as in element 1, saw prompts with completions"));
  EXPECT_THAT(
      error_of(
          R"({"prompt": "p", "completion": "c"})"
          "\n"
          R"({"prompt": [{"role": "user", "content": "u"}], "completion": [{"role": "assistant", "content": "b"}]})"),
      StartsWith("in.jsonl:2: expected 'prompt' and 'completion' to be texts as on line 1, saw lists of messages"));
}

TEST(ChatExamples, PreferenceDataIsRefusedByName) {
  for (const std::string row :
       {R"({"prompt": "p", "chosen": "a", "rejected": "b"})", R"({"chosen": [], "rejected": []})",
        R"({"input": {"messages": []}, "preferred_output": [], "non_preferred_output": []})",
        R"({"prompt": "p", "completion": "c", "label": true})", R"({"messages": [], "kto_tag": true})",
        R"({"prompt": "p", "completions": ["a"], "labels": [true]})"}) {
    EXPECT_THAT(error_of(row), StartsWith("in.jsonl:1: this is preference data ('")) << row;
  }
  EXPECT_THAT(error_of(kPair + R"({"messages": [], "rejected": "b"})"),
              StartsWith("in.jsonl:2: this is preference data ('rejected')"));
  EXPECT_THAT(error_of("prompt,completion,label\np,c,True\n", "in.csv"), HasSubstr("preference data ('label')"));
}

TEST(ChatExamples, FieldsMissingEmptyOrOfTheWrongType) {
  EXPECT_THAT(error_of(R"({"instruction": "i", "outputs": "o"})"),
              StartsWith("in.jsonl:1: expected 'output', saw the keys 'instruction', 'outputs' (did you mean 'output' "
                         "instead of 'outputs'?)"));
  EXPECT_THAT(error_of(R"({"instruction": "i", "output": ""})"), StartsWith("in.jsonl:1: 'output' is empty"));
  EXPECT_THAT(error_of(R"({"instruction": " ", "output": "o"})"), StartsWith("in.jsonl:1: 'instruction' is empty"));
  EXPECT_THAT(error_of(R"({"instruction": "i", "output": ["o"]})"),
              StartsWith("in.jsonl:1: expected 'output' to be a text, saw a list"));
  EXPECT_THAT(error_of(R"({"instruction": "i", "output": "o", "history": [["u"]]})"),
              HasSubstr("pair 1 of 'history' to hold two texts"));
  EXPECT_THAT(error_of(R"({"instruction": "i", "output": "o", "history": ["u"]})"),
              HasSubstr("expected pair 1 of 'history' to be a list, saw a text"));
  EXPECT_THAT(error_of(R"({"instruction": "i", "output": "o", "history": [["u", ""]]})"),
              HasSubstr("pair 1 of 'history' is empty"));
  EXPECT_THAT(error_of(R"({"prompt": "p"})"), StartsWith("in.jsonl:1: expected 'completion', saw the key 'prompt'"));
  EXPECT_THAT(error_of(R"({"prompt": "p", "completion": ""})"), StartsWith("in.jsonl:1: 'completion' is empty"));
  EXPECT_THAT(error_of(R"({"prompt": "p", "completion": []})"),
              HasSubstr("'prompt' is a text and 'completion' is a list"));
  EXPECT_THAT(error_of(R"({"prompt": [], "completion": []})"), HasSubstr("'prompt' is empty"));
  EXPECT_THAT(error_of(R"({"text": "\u200b\n"})"), StartsWith("in.jsonl:1: 'text' is empty"));
  EXPECT_THAT(error_of(R"({"messages": {}})"),
              StartsWith("in.jsonl:1: expected 'messages' to be a list, saw an object"));
  EXPECT_THAT(error_of(R"({"messages": []})"), StartsWith("in.jsonl:1: 'messages' is empty"));
  EXPECT_THAT(error_of(chat("3")),
              StartsWith("in.jsonl:1: expected message 1 of 'messages' to be an object, saw a number"));
  EXPECT_THAT(
      error_of(chat(R"({"role": "user", "contents": "u"})")),
      StartsWith(
          "in.jsonl:1: message 1 of 'messages': expected 'content', saw the keys 'role', 'contents' (did you mean"));
  EXPECT_THAT(error_of(chat(R"({"from": "human", "value": "u"})")),
              HasSubstr("expected 'role', saw the keys 'from', 'value'"));
  EXPECT_THAT(error_of(R"({"conversations": [{"value": "u"}]})"), HasSubstr("expected 'from', saw the key 'value'"));
  EXPECT_THAT(error_of(chat(R"({"role": 1, "content": "u"})")),
              HasSubstr("expected 'role' to be a text, saw a number"));
  EXPECT_THAT(error_of(chat(R"({"role": "user", "content": 5})")),
              HasSubstr("expected 'content' to be a text or a list of texts, saw a number"));
  EXPECT_THAT(error_of(chat(R"({"role": "user", "content": "u"}, {"role": "assistant", "content": null})")),
              HasSubstr("message 2 of 'messages': expected 'content', saw the key 'role'"));
  EXPECT_THAT(error_of(chat(R"({"role": "user", "content": "u"}, {"role": "assistant", "content": ""})")),
              StartsWith("in.jsonl:1: message 2 of 'messages': 'content' of role 'assistant' is empty"));
  EXPECT_THAT(error_of(R"({"schemaVersion": "v9", "messages": []})"),
              HasSubstr("expected 'schemaVersion' to be 'bedrock-conversation-2024', saw 'v9'"));
  EXPECT_THAT(error_of("prompt,text\np,t\n", "in.csv"),
              StartsWith("in.csv: expected 'completion', saw the keys 'prompt', 'text'"));
  EXPECT_THAT(error_of("prompt,completion\np,c\nq,\n", "in.csv"), StartsWith("in.csv:3: 'completion' is empty"));
}

TEST(ChatExamples, Roles) {
  const auto role = [](const std::string& name) {
    return error_of(chat("{\"role\": \"" + name + "\", \"content\": \"u\"}"));
  };
  EXPECT_THAT(
      role("asistant"),
      HasSubstr("message 1 of 'messages': unknown role 'asistant'; expected one of 'system', 'developer', 'user', "
                "'assistant', 'tool' (did you mean 'assistant'?)"));
  EXPECT_THAT(role("human"), HasSubstr("did you mean 'user'?"));
  EXPECT_THAT(role("gpt"), HasSubstr("did you mean 'assistant'?"));
  EXPECT_THAT(role("User"), HasSubstr("did you mean 'user'?"));
  EXPECT_THAT(role("ipython"), HasSubstr("role 'ipython' belongs to calls of tools in another shape"));
  EXPECT_THAT(error_of(R"({"conversations": [{"from": "gtp", "value": "u"}]})"), HasSubstr("did you mean 'gpt'?"));
}

TEST(ChatExamples, OrderOfRoles) {
  const auto turns = [](const std::vector<std::string>& roles) {
    std::string messages;
    for (const std::string& role : roles)
      messages += (messages.empty() ? "{\"role\": \"" : ", {\"role\": \"") + role + "\", \"content\": \"x\"}";
    return error_of(chat(messages));
  };
  EXPECT_THAT(turns({"user", "system", "assistant"}),
              StartsWith("in.jsonl:1: turn 2 is the system's; expected it first"));
  EXPECT_THAT(turns({"system", "system", "user", "assistant"}),
              StartsWith("in.jsonl:1: turns 1 and 2 are both the system's"));
  EXPECT_THAT(turns({"user", "assistant", "assistant"}),
              StartsWith("in.jsonl:1: turns 2 and 3 are both the assistant's"));
  EXPECT_THAT(turns({"user", "user", "assistant"}), StartsWith("in.jsonl:1: turns 1 and 2 are both the user's"));
  EXPECT_THAT(turns({"assistant", "user", "assistant"}),
              StartsWith("in.jsonl:1: turn 1 is the assistant's before any of the user"));
  EXPECT_THAT(turns({"system", "assistant"}),
              StartsWith("in.jsonl:1: turn 2 is the assistant's before any of the user"));
}

const std::string kTools = R"("tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}])";
const std::string kAsk = R"({"role": "user", "content": "u"})";

std::string call(const std::string& arguments) {
  return R"({"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": )"
         R"({"name": "weather", "arguments": )" +
         arguments + "}}]}";
}

TEST(ChatExamples, CallsOfTools) {
  const std::string answer = R"({"role": "tool", "tool_call_id": "c1", "content": "21"})";
  const std::string row = "{" + kTools + R"(, "messages": [)" + kAsk + ", " + call(R"("{\"city\": \"Bern\"}")") + ", " +
                          answer + R"(, {"role": "assistant", "content": "21 degrees"}]})";
  const ChatExample example = only(row);
  ASSERT_EQ(example.turns.size(), 4U);
  const Json calls{
      {{"type", "function"}, {"id", "c1"}, {"function", {{"name", "weather"}, {"arguments", {{"city", "Bern"}}}}}}};
  EXPECT_EQ(example.turns[1].tool_calls, calls);
  EXPECT_EQ(example.turns[1].content, "");
  EXPECT_TRUE(example.turns[1].learn);
  EXPECT_EQ(example.turns[2].role, "tool");
  EXPECT_EQ(example.turns[2].tool_call_id, "c1");
  EXPECT_FALSE(example.turns[2].learn);
  EXPECT_EQ(example.tools.at(0).at("function").at("name"), "weather");
  // Arguments as an object are the same, and so is the row.
  const std::string same = "{" + kTools + R"(, "messages": [)" + kAsk + ", " + call(R"({"city": "Bern"})") + ", " +
                           answer + R"(, {"role": "assistant", "content": "21 degrees"}]})";
  EXPECT_EQ(parse(row + "\n" + same).duplicates, 1U);
}

TEST(ChatExamples, OlderShapesOfCalls) {
  const ChatExample older =
      only(R"({"functions": [{"name": "weather"}], "messages": [)" + kAsk +
           R"(, {"role": "assistant", "content": null, "function_call": {"name": "weather", "arguments": "{}"}}, )"
           R"({"role": "function", "name": "weather", "content": "21"}, {"role": "assistant", "content": "ok"}]})");
  EXPECT_EQ(older.tools, (Json{{{"type", "function"}, {"function", {{"name", "weather"}}}}}));
  EXPECT_EQ(older.turns[1].tool_calls.at(0).at("function").at("name"), "weather");
  EXPECT_EQ(older.turns[2].role, "tool");
  EXPECT_EQ(older.turns[2].name, "weather");
  const ChatExample sharegpt =
      only(R"({"tools": "[{\"name\": \"weather\"}]", "conversations": [{"from": "human", "value": "u"}, )"
           R"({"from": "function_call", "value": "{\"name\": \"weather\", \"arguments\": {\"a\": 1}}"}, )"
           R"({"from": "observation", "value": "21"}, {"from": "gpt", "value": "ok"}]})");
  EXPECT_EQ(sharegpt.turns[1].tool_calls.at(0).at("function").at("arguments"), (Json{{"a", 1}}));
  EXPECT_TRUE(sharegpt.turns[1].learn);
  EXPECT_EQ(sharegpt.turns[2].content, "21");
  EXPECT_FALSE(sharegpt.tools.is_null());
}

TEST(ChatExamples, WrongCallsOfToolsAreNamed) {
  EXPECT_THAT(
      error_of(chat(kAsk + ", " + call("\"{\""))),
      StartsWith("in.jsonl:1: message 2 of 'messages': the arguments of call 1 of 'tool_calls' are not valid JSON"));
  EXPECT_THAT(error_of(chat(kAsk + ", " + call("[1]"))),
              HasSubstr("expected the arguments of call 1 of 'tool_calls' to be an object, saw [1]"));
  EXPECT_THAT(error_of(chat(kAsk + R"(, {"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]})")),
              HasSubstr("call 1 of 'tool_calls' has no name"));
  EXPECT_THAT(error_of(chat(R"({"role": "user", "content": "u", "tool_calls": [{"function": {"name": "f"}}]})")),
              HasSubstr("role 'user' calls tools"));
  EXPECT_THAT(error_of(R"({"messages": [)" + kHello + R"(], "tools": [{"type": "function", "function": {}}]})"),
              StartsWith("in.jsonl:1: tool 1 of 'tools' has no name"));
  EXPECT_THAT(error_of(R"({"messages": [)" + kHello + R"(], "tools": {"name": "f"}})"),
              StartsWith("in.jsonl:1: expected 'tools' to be a list"));
  EXPECT_THAT(error_of(chat(kAsk + R"(, {"role": "tool", "content": "21"}, {"role": "assistant", "content": "a"})")),
              StartsWith("in.jsonl:1: turn 2 is a tool's answer, but the assistant has called no tool"));
  EXPECT_THAT(error_of(chat(kAsk + ", " + call("{}") + R"(, {"role": "tool", "tool_call_id": "c2", "content": "21"})")),
              StartsWith("in.jsonl:1: turn 3 answers the call 'c2'; the calls before it are 'c1'"));
  EXPECT_THAT(error_of(chat(kAsk + ", " + call("{}") + ", " + kAsk + R"(, {"role": "assistant", "content": "a"})")),
              StartsWith("in.jsonl:1: turn 2 calls a tool, but turn 3 is the user's"));
  EXPECT_THAT(error_of(R"({"instruction": "i", "output": "o", "tools": [{"name": "f"}]})"),
              HasSubstr("'tools': this shape has no calls of tools"));
}

TEST(ChatExamples, PartsThatAreNoTextAreRefusedByName) {
  EXPECT_THAT(error_of(chat(R"({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]})")),
              HasSubstr("part 1 of 'content' is of type 'image_url'"));
  EXPECT_THAT(error_of(chat(R"({"role": "user", "content": [{"toolUse": {"name": "f"}}]})")),
              HasSubstr("'toolUse': this shape has no calls of tools"));
  EXPECT_THAT(error_of(chat(R"({"role": "user", "content": [{"image": {"format": "png"}}]})")),
              HasSubstr("part 1 of 'content': expected 'text', saw the key 'image'"));
  EXPECT_THAT(error_of(R"({"messages": [], "images": ["a.png"]})"), HasSubstr("'images': only text can be learnt"));
}

TEST(ChatExamples, WeightsOtherThanZeroAndOne) {
  const auto weight = [](const std::string& role, const std::string& value) {
    return error_of(chat("{\"role\": \"" + role + "\", \"content\": \"u\", \"weight\": " + value + "}"));
  };
  for (const std::string value : {"2", "0.5", "-1", "true", "\"1\"", "[1]"})
    EXPECT_THAT(weight("assistant", value), HasSubstr("expected 'weight' to be 0 or 1, saw " + value)) << value;
  EXPECT_THAT(weight("user", "1"), HasSubstr("'weight' is 1 on role 'user'; only the assistant's turns are learnt"));
}

TEST(ChatExamples, Limits) {
  const ChatReadOptions options = {.max_text_bytes = 10, .max_turns = 4};
  EXPECT_EQ(parse(R"({"text": "0123456789"})", "in.jsonl", options).examples.size(), 1U);
  EXPECT_THAT(error_of(R"({"text": "0123456789a"})", "in.jsonl", options),
              StartsWith("in.jsonl:1: 'text' holds 11 bytes of text; the limit is 10"));
  EXPECT_THAT(error_of(R"({"instruction": "01234", "input": "56789", "output": "o"})", "in.jsonl", options),
              HasSubstr("'instruction' with 'input' holds 12 bytes"));
  EXPECT_THAT(
      error_of(
          chat(
              R"({"role": "user", "content": [{"type": "text", "text": "012345"}, {"type": "text", "text": "67890"}]})"),
          "in.jsonl", options),
      HasSubstr("message 1 of 'messages': 'content' holds 11 bytes"));
  EXPECT_THAT(error_of("text\n0123456789a\n", "in.csv", options), HasSubstr("more than 10 bytes"));
  EXPECT_EQ(parse(chat(kHello + ", " + kHello), "in.jsonl", options).examples.size(), 1U);
  EXPECT_THAT(error_of(chat(kHello + ", " + kHello + ", " + kHello), "in.jsonl", options),
              StartsWith("in.jsonl:1: more than 4 turns"));
  EXPECT_THAT(
      error_of(R"({"instruction": "i", "output": "o", "system": "s", "history": [["u", "a"]]})", "in.jsonl", options),
      StartsWith("in.jsonl:1: more than 4 turns"));
}

}  // namespace
}  // namespace tailor
