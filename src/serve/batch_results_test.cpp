#include "serve/batch_results.h"

#include <fstream>

#include "store/store_testing.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

BatchAnswer good(const std::string& id, int tokens = 2) {
  const Json body{{"usage",
                   {{"prompt_tokens", 3},
                    {"completion_tokens", tokens},
                    {"total_tokens", 3 + tokens},
                    {"prompt_tokens_details", {{"cached_tokens", 1}}}}}};
  return {id, 200, "req-" + id, dump_json(body)};
}

void append(const fs::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::app | std::ios::binary) << bytes;
}

TEST(BatchResults, LinesAreThoseOfOpenAI) {
  const Json answered = batch_answer_object(good("a"));
  EXPECT_EQ(answered["id"].get<std::string>().rfind("batch_req_", 0), 0U);
  EXPECT_EQ(answered["custom_id"], "a");
  EXPECT_EQ(answered["response"]["status_code"], 200);
  EXPECT_EQ(answered["response"]["request_id"], "req-a");
  EXPECT_EQ(answered["response"]["body"]["usage"]["prompt_tokens"], 3);
  EXPECT_TRUE(answered["error"].is_null());
  const Json expired = batch_answer_object({"b", 0, "", "", "batch_expired", "too late"});
  EXPECT_TRUE(expired["response"].is_null());
  EXPECT_EQ(expired["error"], Json({{"code", "batch_expired"}, {"message", "too late"}}));
}

TEST(BatchResults, CountsAndGoesOnWhereItWas) {
  const TemporaryDirectory dir;
  const fs::path place = dir.path() / "runs" / "batch_1";
  Json usage;
  {
    BatchResults results = BatchResults::open(place).value();
    const std::vector<BatchAnswer> first{good("a"), {"b", 400, "req-b", "{\"error\": {}}"}};
    results.add(first).value();
    const std::vector<BatchAnswer> more{
        good("c", 5), {"d", 0, "", "", "batch_expired", ""}, {"e", 0, "", "", "request_timeout", ""}};
    results.add(more).value();
    EXPECT_EQ(results.progress().completed, 2);
    EXPECT_EQ(results.progress().failed, 2) << "refused, and too slow; not what was never asked";
    usage = results.progress().usage;
    EXPECT_EQ(usage, Json({{"input_tokens", 6},
                           {"input_tokens_details", {{"cached_tokens", 2}}},
                           {"output_tokens", 7},
                           {"output_tokens_details", {{"reasoning_tokens", 0}}},
                           {"total_tokens", 13}}));
  }
  const std::string whole = read_file(place / "output.jsonl").value();
  append(place / "output.jsonl", "{\"id\": \"batch_req_x\", \"custom_id\": \"f\", \"resp");  // a killed writer
  append(place / "errors.jsonl", std::string(100, '\0') + "\n");                             // a power cut
  BatchResults again = BatchResults::open(place).value();
  EXPECT_EQ(read_file(place / "output.jsonl").value(), whole);
  EXPECT_EQ(again.progress().completed, 2);
  EXPECT_EQ(again.progress().failed, 2);
  EXPECT_EQ(again.progress().usage, usage);
  for (const char* id : {"a", "b", "c", "d", "e"}) EXPECT_TRUE(again.has(id)) << id;
  EXPECT_FALSE(again.has("f"));
  const std::vector<BatchAnswer> last{good("f")};
  again.add(last).value();
  EXPECT_EQ(read_file(place / "output.jsonl").value().rfind(whole, 0), 0U) << "what was there stays";
}

TEST(BatchResults, AFullDiskLosesNothing) {
  const TemporaryDirectory dir;
  BatchResults results = BatchResults::open(dir.path() / "batch_1").value();
  const std::vector<BatchAnswer> first{good("a")}, second{good("b"), {"c", 400, "", std::string(4000, 'x')}};
  results.add(first).value();
  const std::string before = read_file(dir.path() / "batch_1" / "output.jsonl").value();
  const auto add_to_full = [&] {
    const FullDisk full(2000);
    return results.add(second);
  };
  const Status refused = add_to_full();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kIo);
  EXPECT_FALSE(results.has("b"));
  EXPECT_EQ(results.progress().completed, 1);
  EXPECT_EQ(read_file(dir.path() / "batch_1" / "output.jsonl").value(), before) << "nothing half";
  results.add(second).value();
  EXPECT_EQ(results.progress().completed, 2);
  EXPECT_EQ(BatchResults::open(dir.path() / "batch_1").value().progress().failed, 1);
}

TEST(BatchResults, FilesAreMadeOnce) {
  const TestStore store;
  BatchResults results = BatchResults::open(store.dir.path() / "batch_1").value();
  const auto none = results.publish(store->files(), "batch_1", "key_a").value();
  EXPECT_TRUE(none.output.empty() && none.errors.empty());
  const std::vector<BatchAnswer> answers{good("a")};
  results.add(answers).value();
  const auto made = results.publish(store->files(), "batch_1", "key_a").value();
  EXPECT_TRUE(made.errors.empty());
  const FileRecord file = store->files().find(made.output).value();
  EXPECT_EQ(file.purpose, "batch_output");
  EXPECT_EQ(file.owner, "key_a");
  EXPECT_EQ(file.filename, "batch_1_output.jsonl");
  EXPECT_EQ(read_file(store->files().content(file)).value(),
            read_file(store.dir.path() / "batch_1" / "output.jsonl").value());
  EXPECT_EQ(results.publish(store->files(), "batch_1", "key_a").value().output, made.output)
      << "by a server that was killed";
  EXPECT_EQ(store->files().list({}).value().data.size(), 1U);
}

}  // namespace
}  // namespace tailor
