// How much the files of a key may take.

#include "serve/upload.h"

#include "serve/test_batches.h"

namespace tailor {
namespace {

using test::JsonAnswer;
using test::KeyedBatchApi;

std::string form_of(const std::string& content) {
  return "--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n"
         "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\r\n" +
         content + "\r\n--XX--\r\n";
}

std::string head_of(std::size_t bytes, const std::string& fields = "") {
  return "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=XX\r\n" + fields +
         "Content-Length: " + std::to_string(bytes) + "\r\n\r\n";
}

class Uploads : public KeyedBatchApi {
 protected:
  void SetUp() override {
    keyed_ = true;
    server_.limits.stored_bytes = 10'000;
    start();
  }
  JsonAnswer ask(const std::string& request) {
    const test::Answer answer = api_->client().ask(request);
    return {answer.status, answer.headers, Json::parse(answer.body, nullptr, false)};
  }
  JsonAnswer send(const CreatedApiKey& who, std::size_t bytes) {
    const std::string form = form_of(std::string(bytes, 'x'));
    return ask(head_of(form.size(), bearer(who)) + form);
  }
};

void expect_full(const JsonAnswer& answer) {
  EXPECT_EQ(answer.status, 413) << answer.json;
  EXPECT_EQ(answer.json["error"]["code"], "storage_limit_exceeded");
  EXPECT_EQ(answer.json["error"]["param"], "file");
  const std::string message = answer.json["error"]["message"];
  EXPECT_NE(message.find("10000"), std::string::npos) << message;
  EXPECT_NE(message.find("DELETE /v1/files/{id}"), std::string::npos) << message;
}

TEST_F(Uploads, OfAKeyHaveABoundTogether) {
  const CreatedApiKey mine = key(), other = key();
  const JsonAnswer first = send(mine, 6000);
  ASSERT_EQ(first.status, 200) << first.json;
  expect_full(send(mine, 6000));
  EXPECT_EQ(send(mine, 4000).status, 413) << "a file takes 4096 bytes at least";
  EXPECT_EQ(send(other, 6000).status, 200);
  EXPECT_EQ(api_->get("/v1/files", bearer(mine)).json["data"].size(), 1U);
  const std::string path = "/v1/files/" + first.json["id"].get<std::string>();
  EXPECT_EQ(ask("DELETE " + path + " HTTP/1.1\r\nHost: localhost\r\n" + bearer(mine) + "\r\n").status, 200);
  EXPECT_EQ(send(mine, 9000).status, 200);
}

TEST_F(Uploads, WhatTheServerMadeCountsForNobody) {
  const CreatedApiKey mine = key();
  store_->files().add("out", "batch_output", mine.key.id, std::string(9000, 'x')).value();
  store_->files().add("out", "fine-tune-results", mine.key.id, std::string(9000, 'x')).value();
  EXPECT_EQ(send(mine, 9000).status, 200);
}

TEST_F(Uploads, OneThatHasNoRoomIsRefusedBeforeItIsRead) {
  const CreatedApiKey mine = key();
  expect_full(ask(head_of(std::size_t{1} << 20, bearer(mine))));  // larger than all may be
  ASSERT_EQ(send(mine, 9000).status, 200);
  expect_full(ask(head_of(std::size_t{1} << 20, bearer(mine))));
}

TEST_F(Uploads, OneThatOutgrowsItsRoomLeavesNothing) {
  const CreatedApiKey mine = key();
  expect_full(send(mine, 20'000));
  EXPECT_TRUE(api_->get("/v1/files", bearer(mine)).json["data"].empty());
  EXPECT_EQ(send(mine, 9000).status, 200);
}

}  // namespace
}  // namespace tailor
