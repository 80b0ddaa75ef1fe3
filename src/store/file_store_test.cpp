#include "store/file_store.h"

#include "store/store_testing.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

std::size_t staged(const TestStore& store) {
  return entries(store->directory().root() / "sessions" / store->directory().session()) - 1;  // its lock
}

TEST(FileStore, KeepsContentAndWhatIsKnown) {
  TestStore store;
  FileWriter writer = store->files().begin("train data.jsonl", "fine-tune", "key_a").value();
  writer.write("{\"a\":1}\n").value();
  EXPECT_TRUE(store->files().list({}).value().data.empty()) << "not before it is whole";
  EXPECT_EQ(entries(store->directory().files()), 0U);
  writer.write("{\"a\":2}\n").value();
  const FileRecord added = writer.commit().value();
  EXPECT_EQ(staged(store), 0U);
  store.open();
  const FileRecord found = store->files().find(added.id).value();
  EXPECT_EQ(found.id.substr(0, 5), "file-");
  EXPECT_EQ(found.bytes, 16);
  EXPECT_EQ(found.sha256, sha256_hex("{\"a\":1}\n{\"a\":2}\n"));
  EXPECT_EQ(read_file(store->files().content(found)).value(), "{\"a\":1}\n{\"a\":2}\n");
  EXPECT_EQ(fs::status(store->files().content(found)).permissions(), fs::perms(0600));
  EXPECT_TRUE(store->files().check_content(found));
  EXPECT_EQ(dump_json(file_object(found)),
            "{\"id\":\"" + found.id +
                "\",\"object\":\"file\",\"bytes\":16,\"created_at\":1700000000,\"filename\":\"train data.jsonl\","
                "\"purpose\":\"fine-tune\",\"status\":\"uploaded\",\"status_details\":null}");
  EXPECT_EQ(found.owner, "key_a");
}

TEST(FileStore, ADroppedUploadLeavesNothing) {
  const TestStore store;
  {
    FileWriter writer = store->files().begin("a", "batch", "k").value();
    writer.write("half").value();
    EXPECT_EQ(staged(store), 1U);
  }
  EXPECT_EQ(staged(store), 0U);
  EXPECT_TRUE(store->files().list({}).value().data.empty());
}

TEST(FileStore, TheLimitHoldsToTheByte) {
  const TestStore store(10);
  EXPECT_TRUE(store->files().add("a", "batch", "k", "0123456789"));
  FileWriter writer = store->files().begin("a", "batch", "k").value();
  writer.write("0123456789").value();
  EXPECT_EQ(writer.write("x").error().code, ErrorCode::kInvalidArgument);
  EXPECT_FALSE(writer.commit()) << "a file that failed stays failed";
}

TEST(FileStore, WhatTheServerMadeMayBeOfAnySize) {
  const TestStore store(10);
  FileWriter writer = store->files().begin_own("a", "batch_output", "k").value();
  writer.write("0123456789").value();
  writer.write("0123456789").value();
  EXPECT_EQ(writer.commit().value().bytes, 20);
}

TEST(FileStore, RoomIsTakenBeforeAnythingIsWritten) {
  const TestStore store;
  {
    FileWriter writer = store->files().begin_own("a", "batch_output", "k").value();
    const FullDisk full(1 << 20);
    EXPECT_EQ(writer.reserve(2 << 20).error().code, ErrorCode::kIo);
    EXPECT_FALSE(writer.commit());
  }
  EXPECT_EQ(staged(store), 0U);
  FileWriter writer = store->files().begin_own("a", "batch_output", "k").value();
  writer.reserve(1 << 16).value();
  writer.write("abc").value();
  const FileRecord file = writer.commit().value();
  EXPECT_EQ(file.bytes, 3);
  EXPECT_EQ(read_file(store->files().content(file)).value(), "abc") << "what was not needed is given back";
}

constexpr std::int64_t kMostStored = 10'000;

FileWriter bounded(Store& store, const std::string& owner = "k") {
  return store.files().begin("a", "batch", owner, kMostStored).value();
}

TEST(FileStore, AnOwnersUploadsHaveABound) {
  const TestStore store;
  const auto add = [&](std::size_t bytes, const std::string& owner = "k") {
    FileWriter writer = bounded(*store.store, owner);
    const Status written = writer.write(std::string(bytes, 'x'));
    const bool kept = written && writer.commit();
    EXPECT_EQ(writer.out_of_room(), !kept);
    return kept;
  };
  EXPECT_TRUE(add(5000));
  EXPECT_FALSE(add(5001));
  EXPECT_EQ(store->files().check_room("k", 5001, kMostStored).error().code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(store->files().check_room("k", 5000, kMostStored));
  EXPECT_TRUE(store->files().check_room("other", kMostStored, kMostStored));
  EXPECT_TRUE(add(5000));
  EXPECT_FALSE(add(1));
  EXPECT_TRUE(add(5000, "other"));
  EXPECT_TRUE(store->files().add("made", "batch_output", "k", std::string(20'000, 'x')));
  EXPECT_EQ(staged(store), 0U);
  EXPECT_EQ(entries(store->directory().files()), 4U);
  store->files().remove(store->files().list({.owner = "k"}, "batch").value().data[0].id).value();
  EXPECT_TRUE(add(5000)) << "there is room again";
}

TEST(FileStore, SmallFilesCountAsTheBlockThatTheyTake) {
  const TestStore store;
  for (int i = 0; i < 3; ++i) {
    FileWriter writer = bounded(*store.store);
    writer.write("x").value();
    EXPECT_EQ(writer.commit().has_value(), i < 2);
  }
  EXPECT_EQ(entries(store->directory().files()), 2U) << "what had no room is gone";
}

TEST(FileStore, UploadsAtATimeHaveTheirBoundTogether) {
  const TestStore store;
  FileWriter first = bounded(*store.store);
  first.write(std::string(6000, 'x')).value();
  {
    FileWriter second = bounded(*store.store);
    second.write(std::string(4000, 'x')).value();
    EXPECT_FALSE(second.write("x"));
    EXPECT_TRUE(second.out_of_room());
  }
  first.write(std::string(4000, 'x')).value();
  EXPECT_TRUE(first.commit()) << "what was dropped has left its room";
}

TEST(FileStore, WhatAnotherProcessStoredOrRemovedCounts) {
  TestStore store;
  const auto other = Store::open(store->directory().root(), {.clock = [&] { return store.now; }}).value();
  const std::string theirs = other->files().add("a", "batch", "k", std::string(8000, 'x')).value().id;
  FileWriter late = bounded(*store.store);
  late.write(std::string(5000, 'x')).value();
  const auto refused = late.commit();
  ASSERT_FALSE(refused);
  EXPECT_TRUE(late.out_of_room());
  EXPECT_NE(refused.error().message.find("have 8000 bytes"), std::string::npos) << refused.error().message;
  EXPECT_FALSE(store->files().check_room("k", 5000, kMostStored)) << "now it is known";
  other->files().remove(theirs).value();
  store.now += 60;
  EXPECT_TRUE(store->files().check_room("k", 5000, kMostStored));
  FileWriter again = bounded(*store.store);
  again.write(std::string(5000, 'x')).value();
  EXPECT_TRUE(again.commit());
}

TEST(FileStore, NamesAreForPeopleOnly) {
  const TestStore store;
  const FileRecord file = store->files().add("../../etc/passwd", "batch", "k", "x").value();
  EXPECT_EQ(store->files().content(file).parent_path(), store->directory().files());
  EXPECT_FALSE(store->files().add("a\r\nSet-Cookie: x", "batch", "k", "x"));
  EXPECT_FALSE(store->files().add("a", "../x", "k", "x"));
  EXPECT_EQ(store->files().find("../store.sqlite").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(store->files().remove("../store.sqlite").error().code, ErrorCode::kNotFound);
}

TEST(FileStore, RemovesRowAndContent) {
  const TestStore store;
  const FileRecord file = store->files().add("a", "batch", "k", "x").value();
  store->files().remove(file.id).value();
  EXPECT_EQ(entries(store->directory().files()), 0U);
  EXPECT_EQ(store->files().find(file.id).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(store->files().remove(file.id).error().code, ErrorCode::kNotFound);
}

TEST(FileStore, StatusAndDamage) {
  const TestStore store;
  const FileRecord file = store->files().add("a", "batch", "k", "x").value();
  store->files().set_status(file.id, "error", "line 3 is not JSON").value();
  EXPECT_EQ(store->files().find(file.id).value().status_details, "line 3 is not JSON");
  EXPECT_EQ(store->files().set_status(file.id, "great", "").error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(store->files().set_status("file-none", "error", "").error().code, ErrorCode::kNotFound);
  write_file_atomic(store->files().content(file), "y").value();
  EXPECT_EQ(store->files().check_content(file).error().code, ErrorCode::kCorruptData);
}

TEST(FileStore, ListsInPages) {
  const TestStore store;
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i)
    ids.push_back(
        store->files().add("a", i % 2 == 0 ? "batch" : "fine-tune", i == 4 ? "key_b" : "key_a", "x").value().id);
  const auto list = [&](const PageQuery& query, const std::string& purpose = {}) {
    const Page<FileRecord> page = store->files().list(query, purpose).value();
    std::string found;
    for (const FileRecord& file : page.data)
      found += std::to_string(std::find(ids.begin(), ids.end(), file.id) - ids.begin());
    return found + (page.has_more ? "+" : "");
  };
  EXPECT_EQ(list({}), "43210");
  EXPECT_EQ(list({.newest_first = false}), "01234");
  EXPECT_EQ(list({.limit = 2}), "43+");
  EXPECT_EQ(list({.after = ids[3], .limit = 2}), "21+");
  EXPECT_EQ(list({.after = ids[1], .limit = 2}), "0");
  EXPECT_EQ(list({.after = ids[1], .limit = 2, .newest_first = false}), "23+");
  EXPECT_EQ(list({}, "batch"), "420");
  EXPECT_EQ(list({.owner = "key_a"}), "3210");
  EXPECT_EQ(list({.after = ids[2], .owner = "key_a"}, "batch"), "0");
  EXPECT_FALSE(store->files().list({.after = "file-none"}));
  EXPECT_FALSE(store->files().list({.after = ids[4], .owner = "key_a"})) << "another owner's id tells nothing";
  EXPECT_FALSE(store->files().list({.limit = 0}));
  const Json object = page_object(store->files().list({.limit = 2}).value(), file_object);
  EXPECT_EQ(object["object"], "list");
  EXPECT_EQ(object["first_id"], ids[4]);
  EXPECT_EQ(object["last_id"], ids[3]);
  EXPECT_EQ(object["has_more"], true);
  EXPECT_TRUE(page_object(Page<FileRecord>(), file_object)["first_id"].is_null());
}

TEST(FileStore, AFullDiskLeavesNothing) {
  const TestStore store;
  const auto add_to_full = [&] {
    const FullDisk full(500 << 10);
    return store->files().add("a", "batch", "k", std::string(1 << 20, 'x'));
  };
  const auto added = add_to_full();
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().code, ErrorCode::kIo);
  EXPECT_EQ(staged(store), 0U);
  EXPECT_EQ(entries(store->directory().files()), 0U);
  EXPECT_TRUE(store->files().add("a", "batch", "k", std::string(1 << 20, 'x')));
}

}  // namespace
}  // namespace tailor
