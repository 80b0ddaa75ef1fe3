#include "store/audit_log.h"

#include <array>
#include <thread>

#include "store/store_testing.h"

namespace tailor {
namespace {

AuditEntry entry(int i) {
  return {"key_a", "package.promote", "support@" + std::to_string(i), {{"stage", "production"}}};
}

/// What somebody with the file can do.
void tamper(Store& store, std::string_view sql) {
  Transaction transaction = store.database().write().value();
  transaction.run("DROP TRIGGER IF EXISTS audit_is_never_changed").value();
  transaction.run("DROP TRIGGER IF EXISTS audit_is_never_cut").value();
  transaction.run(sql).value();
  transaction.commit().value();
}

struct AuditLogTest : testing::Test {
  TestStore store;
  AuditAnchor head;
  void SetUp() override {
    for (int i = 1; i <= 5; ++i) head = store->audit().append(entry(i)).value();
  }
};

TEST_F(AuditLogTest, ChainsAsTheHeaderSays) {
  const std::vector<AuditRecord> records = store->audit().entries(0, 10).value();
  ASSERT_EQ(records.size(), 5U);
  const std::string first =
      R"({"action":"package.promote","actor":"key_a","at":1700000000,"details":{"stage":"production"},)"
      R"("object":"support@1","seq":1})";
  EXPECT_EQ(records[0].hash, sha256_hex(std::string(64, '0') + first));
  std::string second = first;
  second.replace(second.find("support@1"), 9, "support@2");
  second.replace(second.find("\"seq\":1"), 7, "\"seq\":2");
  EXPECT_EQ(records[1].hash, sha256_hex(records[0].hash + second));
  EXPECT_EQ(records[4].entry.object, "support@5");
  EXPECT_EQ(store->audit().entries(3, 1).value()[0].seq, 4);
  EXPECT_EQ(head.count, 5);
  EXPECT_EQ(store->audit().head().value().hash, head.hash);
}

TEST_F(AuditLogTest, VerifiesAfterAReopen) {
  store.open();
  store->audit().append(entry(6)).value();
  const AuditVerdict verdict = store->audit().verify(head).value();
  EXPECT_TRUE(verdict.intact) << verdict.reason;
  EXPECT_EQ(verdict.head.count, 6);
}

TEST_F(AuditLogTest, KeysOfDetailsAreSorted) {
  const AuditAnchor one = store->audit().append({"a", "b", "", {{"x", 1}, {"a", 2}}}).value();
  store->audit().append({"a", "b", "", {{"x", 1}, {"a", 2}}}).value();
  EXPECT_EQ(one.count, 6);
  EXPECT_TRUE(store->audit().verify().value().intact);
}

TEST_F(AuditLogTest, TheTableRefusesChanges) {
  Transaction transaction = store->database().write().value();
  EXPECT_FALSE(transaction.run("UPDATE audit SET actor = 'x'"));
  EXPECT_FALSE(transaction.run("DELETE FROM audit WHERE seq = 5"));
}

TEST_F(AuditLogTest, NamesTheFirstBrokenEntry) {
  struct Case {
    const char* sql;
    std::int64_t broken;
  };
  for (const Case& c : std::initializer_list<Case>{
           {"UPDATE audit SET object = 'support@9' WHERE seq = 4", 4},
           {"UPDATE audit SET at = at + 1 WHERE seq = 3", 3},
           {"UPDATE audit SET details = '{}' WHERE seq = 2", 2},
           {"DELETE FROM audit WHERE seq = 1", 1},
           {"INSERT INTO audit SELECT -1, at, actor, action, object, details, hash FROM audit WHERE seq = 2", 1},
       }) {
    tamper(*store.store, c.sql);
    const AuditVerdict verdict = store->audit().verify().value();
    EXPECT_FALSE(verdict.intact) << c.sql;
    EXPECT_EQ(verdict.first_broken, c.broken) << c.sql << ": " << verdict.reason;
    EXPECT_EQ(verdict.head.count, c.broken - 1);
  }
}

TEST_F(AuditLogTest, AnAnchorShowsACutTailAndAForgedChain) {
  tamper(*store.store, "DELETE FROM audit WHERE seq > 3");
  EXPECT_TRUE(store->audit().verify().value().intact) << "the chain alone cannot tell";
  const AuditVerdict cut = store->audit().verify(head).value();
  EXPECT_FALSE(cut.intact);
  EXPECT_EQ(cut.first_broken, 4);
  for (int i = 14; i <= 16; ++i) store->audit().append(entry(i)).value();
  const AuditVerdict forged = store->audit().verify(head).value();
  EXPECT_FALSE(forged.intact);
  EXPECT_EQ(forged.first_broken, 5);
}

TEST_F(AuditLogTest, RefusesWhatDoesNotBelong) {
  EXPECT_EQ(store->audit().append({"", "x", "", {}}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(store->audit().append({"a", "x\ny", "", {}}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(store->audit().append({"a", "x", "", {{"prompt", std::string(20000, 'x')}}}).error().code,
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(store->audit().head().value().count, 5);
}

TEST_F(AuditLogTest, ThreadsTakeTurns) {
  std::array<std::thread, 4> threads;
  for (std::thread& thread : threads) {
    thread = std::thread([&] {
      for (int i = 0; i < 25; ++i) store->audit().append(entry(i)).value();
    });
  }
  for (std::thread& thread : threads) thread.join();
  const AuditVerdict verdict = store->audit().verify().value();
  EXPECT_TRUE(verdict.intact) << verdict.reason;
  EXPECT_EQ(verdict.head.count, 105);
}

TEST_F(AuditLogTest, WalksMoreThanOneStep) {
  {
    // As append() would, in one transaction: a thousand flushes take long.
    Transaction transaction = store->database().write().value();
    std::string hash = head.hash;
    for (std::int64_t seq = 6; seq <= 2500; ++seq) {
      hash = sha256_hex(hash + R"({"action":"a","actor":"b","at":0,"details":{},"object":"","seq":)" +
                        std::to_string(seq) + "}");
      transaction.run("INSERT INTO audit VALUES (?, 0, 'b', 'a', '', '{}', ?)", {seq, hash}).value();
    }
    transaction.commit().value();
  }
  EXPECT_TRUE(store->audit().verify().value().intact);
  tamper(*store.store, "UPDATE audit SET action = 'c' WHERE seq = 2001");
  EXPECT_EQ(store->audit().verify().value().first_broken, 2001);
}

}  // namespace
}  // namespace tailor
