// Reference-counted nodes of the persistent structures. Internal.
//
// A persistent structure is never changed once it is published: a change copies the nodes on the path to it and shares
// the rest. Within one batch a node that the batch has made itself is changed in place; it is known by its `owner`, the
// number of the batch. Numbers are never used twice, so a published node belongs to nobody.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>

namespace sage::vdb::persistent {

using Owner = std::uint64_t;
inline constexpr Owner nobody = 0;

class Node {
public:
    Node() = default;
    explicit Node(Owner made_by) noexcept : owner(made_by) {}
    // A copy starts its own count.
    Node(const Node& other) noexcept : owner(other.owner) {}
    Node& operator=(const Node&) = delete;
    virtual ~Node() = default;

    Owner owner = nobody;

private:
    template <class T>
    friend class Ref;
    mutable std::atomic<std::uint32_t> count_{0};
};

template <class T>
class Ref {
public:
    Ref() noexcept = default;
    explicit Ref(T* pointer) noexcept : pointer_(pointer) { take(); }
    Ref(const Ref& other) noexcept : pointer_(other.pointer_) { take(); }
    Ref(Ref&& other) noexcept : pointer_(std::exchange(other.pointer_, nullptr)) {}
    template <class U>
    Ref(const Ref<U>& other) noexcept : pointer_(other.get()) {
        take();
    }
    Ref& operator=(const Ref& other) noexcept {
        Ref(other).swap(*this);
        return *this;
    }
    Ref& operator=(Ref&& other) noexcept {
        Ref(std::move(other)).swap(*this);
        return *this;
    }
    ~Ref() { drop(); }

    void swap(Ref& other) noexcept { std::swap(pointer_, other.pointer_); }
    [[nodiscard]] T* get() const noexcept { return pointer_; }
    T& operator*() const noexcept { return *pointer_; }
    T* operator->() const noexcept { return pointer_; }
    explicit operator bool() const noexcept { return pointer_ != nullptr; }
    bool operator==(const Ref& other) const noexcept { return pointer_ == other.pointer_; }

private:
    void take() const noexcept {
        if (pointer_ != nullptr) {
            static_cast<const Node*>(pointer_)->count_.fetch_add(1, std::memory_order_relaxed);
        }
    }
    void drop() noexcept {
        if (pointer_ != nullptr &&
            static_cast<const Node*>(pointer_)->count_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
            delete pointer_;
        }
    }

    T* pointer_ = nullptr;
};

template <class T, class... Arguments>
[[nodiscard]] Ref<T> make_node(Arguments&&... arguments) {
    return Ref<T>(new T(std::forward<Arguments>(arguments)...));
}

// The node itself where `owner` has made it, else a copy that `owner` may change.
template <class T>
[[nodiscard]] T& own(Ref<T>& node, Owner owner) {
    if (node->owner != owner) {
        Ref<T> copy = make_node<T>(std::as_const(*node));
        copy->owner = owner;
        node = std::move(copy);
    }
    return *node;
}

// The version that readers get. The lock is held for the copy of a pointer only.
template <class T>
class Published {
public:
    explicit Published(std::shared_ptr<const T> first) : current_(std::move(first)) {}
    [[nodiscard]] std::shared_ptr<const T> load() const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return current_;
    }
    void store(std::shared_ptr<const T> next) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            current_.swap(next);
        }
        // The old version, if nobody reads it any more, is freed here and not under the lock.
    }

private:
    mutable std::mutex mutex_;
    std::shared_ptr<const T> current_;
};

}  // namespace sage::vdb::persistent
