#include "serve/text_batcher.h"

#include <fmt/format.h>

#include <algorithm>

namespace tailor {
namespace {

using Clock = std::chrono::steady_clock;

double seconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

TextBatcher::TextBatcher(Compute compute, std::shared_ptr<ComputeShare> share, TextBatcherOptions options)
    : compute_(std::move(compute)), share_(std::move(share)), options_(options), thread_([this] { run(); }) {}

TextBatcher::~TextBatcher() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
  for (Item& item : queue_) item.done(Error{ErrorCode::kCancelled, "the model was removed before the answer", ""});
}

Status TextBatcher::submit(std::vector<std::string> texts, Done done, std::function<bool()> gone) {
  {
    const std::lock_guard lock(mutex_);
    if (waiting_ + texts.size() > options_.queue_texts)
      return Error{ErrorCode::kUnavailable, fmt::format("the queue is full: {} texts wait", waiting_), "try again later"};
    waiting_ += texts.size();
    queue_.push_back({std::move(texts), std::move(done), std::move(gone), Clock::now()});
  }
  changed_.notify_one();
  return {};
}

std::size_t TextBatcher::waiting() const {
  const std::lock_guard lock(mutex_);
  return waiting_;
}

void TextBatcher::run() {
  for (;;) {
    std::vector<Item> items;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
      if (stopping_) return;
      std::size_t texts = 0;
      while (!queue_.empty() && (items.empty() || texts + queue_.front().texts.size() <= options_.batch_texts)) {
        texts += queue_.front().texts.size();
        waiting_ -= queue_.front().texts.size();
        items.push_back(std::move(queue_.front()));
        queue_.pop_front();
      }
    }
    std::erase_if(items, [](const Item& item) { return item.gone && item.gone(); });
    if (!items.empty()) answer(items);
  }
}

void TextBatcher::answer(std::vector<Item>& items) {
  std::vector<std::string> texts;
  for (Item& item : items) std::move(item.texts.begin(), item.texts.end(), std::back_inserter(texts));
  const Clock::time_point begin = Clock::now();
  Result<Matrix> rows = Error{};
  try {
    ComputeShare::Busy busy(*share_);
    busy.set(true);
    const ComputeShare::Turn turn(*share_);
    rows = compute_(texts);
  } catch (const std::exception& e) {
    rows = Error{ErrorCode::kInternal, fmt::format("the batch failed: {}", e.what()), ""};
  }
  const Clock::time_point end = Clock::now();
  std::size_t first = 0;
  for (Item& item : items) {
    const std::size_t n = item.texts.size();
    if (!rows.has_value()) {
      item.done(rows.error());
      continue;
    }
    BatchedRows out{Matrix(n, rows->cols), seconds(item.since, begin), seconds(begin, end), texts.size()};
    std::copy_n(rows->data.begin() + static_cast<std::ptrdiff_t>(first * rows->cols), n * rows->cols, out.rows.data.begin());
    first += n;
    item.done(std::move(out));
  }
}

}  // namespace tailor
